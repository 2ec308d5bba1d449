"""What a row is in each form, and that the reader of the form makes the same row of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from msgspec.structs import replace

from registry.datasets.export import llamafactory as dataset_llamafactory
from registry.datasets.export.forms import FormLayout, layout
from registry.datasets.formats.content import Content, Kind, Message
from registry.datasets.formats.turns import UnusableError, json_text
from tests.support.any_rows import contents
from tests.support.made_versions import sft

Form = Literal["parquet", "jsonl", "trl"]
FORMS: tuple[Form, ...] = ("parquet", "jsonl", "trl")
CALL = json_text(
    [{"type": "function", "function": {"name": "find", "arguments": {"b": 1, "a": [None, "é"]}}}]
)
TOOLS = json_text([{"type": "function", "function": {"name": "find", "parameters": {}}}])
ASKED = Message("user", "how far?")
TOLD = Message("assistant", "12 km")
CALLED = Content(
    "sft",
    (ASKED, Message("assistant", "", tool_calls=CALL), Message("tool", "12"), TOLD),
    tools=TOOLS,
)
NAMED = Content("sft", (Message("user", "hi", name="Ann"), TOLD))
UNTRAINED = Content("sft", (ASKED, Message("assistant", "?", train=False), ASKED, TOLD))
PAIR = Content("preference", (ASKED,), chosen=(TOLD,), rejected=(Message("assistant", "far"),))
THUMB = Content("feedback", (ASKED, TOLD), label=False)
TEXT = Content("text", (Message("text", "once"),))


@given(content=contents())
@example(content=CALLED)
@example(content=NAMED)
@example(content=UNTRAINED)
def test_json_lines_hold_every_row(content: Content) -> None:
    how = layout("jsonl", content.kind)
    line = json.dumps(how.checked(content), ensure_ascii=False)
    assert how.reader.content(json.loads(line)) == content


@given(content=contents())
def test_a_form_holds_a_row_or_refuses_it(content: Content) -> None:
    for form in FORMS:
        how = layout(form, content.kind)
        try:
            record = how.checked(content)
        except UnusableError:
            assert form == "trl"
            turns = (*content.messages, *(content.chosen or ()), *(content.rejected or ()))
            assert any(turn.train is not None for turn in turns)
            continue
        assert how.reader.content(record) == content


def test_openai_form_has_ids_and_arguments_as_text() -> None:
    record = layout("jsonl", "sft").checked(CALLED)
    asked, called, result, _ = record["messages"]
    assert asked == {"role": "user", "content": "how far?"}
    (call,) = called["tool_calls"]
    assert call["id"] == result["tool_call_id"] == "call_1"
    assert call["function"] == {"name": "find", "arguments": '{"b": 1, "a": [null, "é"]}'}
    assert record["tools"] == json.loads(TOOLS)


def test_trl_form_has_arguments_as_objects_and_tools_as_text() -> None:
    record = layout("trl", "sft").checked(CALLED)
    (call,) = record["messages"][1]["tool_calls"]
    assert call["function"]["arguments"] == {"b": 1, "a": [None, "é"]}
    assert record["tools"] == TOOLS


def test_each_kind_has_the_columns_that_trl_names() -> None:
    columns = {
        content.kind: list(layout("trl", content.kind).checked(content))
        for content in (sft("a", "b"), TEXT, PAIR, THUMB)
    }
    assert columns == {
        "sft": ["messages"],
        "text": ["text"],
        "preference": ["prompt", "chosen", "rejected"],
        "feedback": ["prompt", "completion", "label"],
    }
    assert layout("trl", "feedback").checked(THUMB) == {
        "prompt": [{"role": "user", "content": "how far?"}],
        "completion": [{"role": "assistant", "content": "12 km"}],
        "label": False,
    }


@pytest.mark.parametrize(
    ("form", "content", "said"),
    [
        ("trl", UNTRAINED, "masked from the loss"),
        ("parquet", replace(CALLED, messages=(ASKED, Message("assistant", "", "[]"), TOLD)), "row"),
        ("jsonl", Content("sft", (Message("system", "be kind", name="x"), ASKED, TOLD)), "another"),
        ("jsonl", Content("sft", (Message("assistant", "hi"), Message("tool", "x"))), "again"),
        ("jsonl", Content("sft", (ASKED, Message("assistant", "", '[{"name": 1}]'))), "tool call"),
        ("jsonl", replace(CALLED, tools="[1]"), "tools"),
    ],
)
def test_what_a_form_would_lose_is_refused(form: Form, content: Content, said: str) -> None:
    with pytest.raises(UnusableError, match=said):
        layout(form, content.kind).checked(content)


def test_the_check_sees_a_form_that_loses_something() -> None:
    whole = layout("jsonl", "sft")

    def forgetful(content: Content) -> dict[str, Any]:
        record = whole.record(content)
        for turn in record["messages"]:
            turn.pop("name", None)
        return record

    assert whole.checked(NAMED)
    with pytest.raises(UnusableError, match="another row"):
        FormLayout(forgetful, whole.reader).checked(NAMED)


def test_other_columns_come_along_unless_the_form_has_them_already() -> None:
    how = layout("jsonl", "sft")
    record = how.checked(sft("a", "b"))
    meta = '{"id": 7, "prompt": "p", "source": {"a": [1]}}'
    whole = how.with_columns(record, meta)
    assert how.reader.meta(whole) == meta
    assert how.reader.content(whole) == sft("a", "b")
    for taken in ("messages", "tools", "system"):
        with pytest.raises(UnusableError, match=f"'{taken}'"):
            how.with_columns(record, json.dumps({taken: 1}))


# ---------------------------------------------------------------------------- LLaMA-Factory


def factory(folder: Path, kind: Kind, *, with_tools: bool) -> FormLayout:
    entry = dataset_llamafactory.entry("rows.jsonl", kind, with_tools=with_tools)
    (folder / "rows.jsonl").touch()
    (folder / "dataset_info.json").write_text(json.dumps({"rows": entry}))
    return dataset_llamafactory.layout(folder, "rows", with_tools=with_tools)


@pytest.mark.parametrize("with_tools", [False, True])
@pytest.mark.parametrize("content", [sft("a", "b", system="s"), PAIR, THUMB])
def test_llamafactory_holds_each_kind(tmp_path: Path, content: Content, with_tools: bool) -> None:
    how = factory(tmp_path, content.kind, with_tools=with_tools)
    record = how.checked(content)
    assert how.reader.content(record) == content
    entry = json.loads((tmp_path / "dataset_info.json").read_text())["rows"]
    assert set(record) - {"input"} == set(entry["columns"].values()) - {"input"}


def test_llamafactory_holds_earlier_turns_and_calls(tmp_path: Path) -> None:
    turns = Content("sft", (ASKED, Message("assistant", "?"), ASKED, TOLD))
    record = factory(tmp_path, "sft", with_tools=False).checked(turns)
    assert record["history"] == [["how far?", "?"]]
    called = factory(tmp_path, "sft", with_tools=True).checked(CALLED)
    assert [turn["from"] for turn in called["conversations"]] == [
        "human",
        "function_call",
        "observation",
        "gpt",
    ]
    assert json.loads(called["conversations"][1]["value"])["arguments"]["b"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (NAMED, "a name"),
        (UNTRAINED, "masked from the loss"),
        (Content("sft", (ASKED, Message("system", "x"), ASKED, TOLD)), "the system speaks after"),
        (Content("sft", (TOLD, ASKED, TOLD)), "alternate"),
        (Content("sft", (ASKED, Message("assistant", "hm", CALL), ASKED, TOLD)), "text and calls"),
        (replace(PAIR, chosen=(TOLD, ASKED, TOLD)), "chosen is several turns"),
    ],
)
@pytest.mark.parametrize("with_tools", [False, True])
def test_llamafactory_refuses_by_name_what_it_has_no_key_for(
    tmp_path: Path, content: Content, said: str, with_tools: bool
) -> None:
    if content.messages[-2:-1] == (ASKED,) and said == "text and calls" and not with_tools:
        return  # a version with a call is never written as alpaca
    with pytest.raises(UnusableError, match=said):
        factory(tmp_path, content.kind, with_tools=with_tools).checked(content)


def test_plain_text_has_no_entry() -> None:
    with pytest.raises(UnusableError, match="plain text"):
        dataset_llamafactory.entry("rows.jsonl", "text", with_tools=False)
