"""Turns: OpenAI's files with tools, and the mappings of axolotl's chat_template."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.chat.messages import as_turn
from registry.chat.thoughts import thought_of
from registry.datasets.formats.content import Content, Message
from registry.datasets.formats.format import SHAPES, Format, left_out
from registry.datasets.formats.turns import OPENAI, UnusableError, turn_of
from registry.datasets.sources.resolve import sources
from registry.datasets.spec import DatasetSpec

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def call(id_: str, city: str) -> dict[str, Any]:
    arguments = json.dumps({"city": city})
    return {
        "id": id_,
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }


def read(record: dict[str, Any], name: str = "messages") -> Content:
    return Format(SHAPES[name]).content(record)


def reason(*messages: dict[str, Any]) -> str:
    with pytest.raises(UnusableError) as raised:
        read({"messages": list(messages)})
    return str(raised.value)


USER = {"role": "user", "content": "Weather in Oslo and Rome?"}
END = {"role": "assistant", "content": "Cold; warm."}


def test_openai_calls_with_null_content_and_results_in_another_order() -> None:
    record = {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call("a", "Oslo"), call("b", "Rome")],
            },
            {"role": "tool", "tool_call_id": "b", "content": "30"},
            {"role": "tool", "tool_call_id": "a", "content": "2"},
            END,
        ],
        "tools": [WEATHER],
        "parallel_tool_calls": True,
    }
    content = read(record)
    assert [m.content for m in content.messages] == [USER["content"], "", "2", "30", "Cold; warm."]
    calls = json.loads(content.messages[1].tool_calls or "")
    assert [one["function"]["arguments"] for one in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert json.loads(content.tools or "") == [WEATHER]
    assert Format(SHAPES["messages"]).meta(record) == '{"parallel_tool_calls": true}'


def test_results_whose_ids_answer_nothing_stay_where_they_are() -> None:
    record = {
        "messages": [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [call("a", "Oslo")]},
            {"role": "tool", "tool_call_id": "z", "content": "1"},
            {"role": "tool", "content": "2"},
            END,
        ]
    }
    assert [m.content for m in read(record).messages[2:4]] == ["1", "2"]


def test_the_old_function_call_and_functions_are_calls_and_tools() -> None:
    record = {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
            },
            {"role": "function", "name": "get_weather", "content": "2"},
            END,
        ],
        "functions": [WEATHER["function"]],
    }
    content = read(record)
    assert json.loads(content.messages[1].tool_calls or "")[0]["function"]["name"] == "get_weather"
    assert content.messages[2] == Message("tool", "2", name="get_weather")
    assert json.loads(content.tools or "") == [WEATHER]


def test_what_parquet_fills_in_as_null_is_absent() -> None:
    turns = [
        {**turn, "name": None, "tool_calls": None, "function_call": None, "weight": None}
        for turn in (USER, END)
    ]
    assert read({"messages": turns, "tools": None}) == read({"messages": [USER, END]})


@pytest.mark.parametrize(("weight", "train"), [(0, False), (1, True), (0.0, False), (None, None)])
def test_weight_says_whether_an_answer_is_trained(weight: object, train: bool | None) -> None:
    assert read({"messages": [USER, END | {"weight": weight}]}).messages[-1].train is train


def test_weights_that_are_no_switch_are_unusable_and_of_others_they_mean_nothing() -> None:
    assert reason(USER, END | {"weight": 0.5}) == "weight is not 0 or 1: 0.5"
    assert reason(USER, END | {"weight": "0"}) == "weight is not 0 or 1: '0'"
    assert read({"messages": [USER | {"weight": 0}, END]}).messages[0].train is None


def test_a_turn_of_no_use_says_why() -> None:
    assert reason(USER, {"role": "assistant", "content": None}) == "a turn without text: NoneType"
    assert reason(USER, {"role": "assistant", "tool_calls": [{"id": 1}]}).startswith("a function")
    assert reason(USER, {"role": "narrator", "content": "x"}) == "unknown role: 'narrator'"


def test_keys_that_a_row_has_no_place_for_are_named() -> None:
    form = Format(SHAPES["messages"])
    heard = END | {"logprobs": [0.1], "audio": None, "name": "x", "weight": 1}
    record = {"messages": [USER, heard], "tools": [WEATHER | {"strict": True}], "id": 7}
    assert left_out(form, record) == {"logprobs"}
    pair = {"prompt": [USER], "chosen": [END], "rejected": END | {"score": 2}}
    assert left_out(Format(SHAPES["preference"]), pair) == {"score"}
    assert left_out(Format(SHAPES["columns"]), {"input": [{"a": 1}], "output": "x"}) == set()


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_is_kept_with_its_answer(key: str) -> None:
    said = {"role": "assistant", "content": "4", key: "two and two"}
    message = turn_of(said, OPENAI)
    assert message.content == "<think>\ntwo and two\n</think>\n\n4"
    assert thought_of(message.content) == ("two and two", "4")
    assert as_turn(message) == {"role": "assistant", "content": "4", "reasoning": "two and two"}
    assert not left_out(Format(SHAPES["messages"]), {"messages": [USER, said]})
    asked = turn_of({"role": "user", "content": "<think>no</think>?"}, OPENAI)
    assert as_turn(asked) == {"role": "user", "content": "<think>no</think>?"}


@pytest.mark.parametrize("name", SHAPES)
def test_a_format_goes_to_another_process(name: str) -> None:
    form = pickle.loads(pickle.dumps(Format(SHAPES[name], {"system": "s"})))  # noqa: S301 - our own
    assert form.used == Format(SHAPES[name], {"system": "s"}).used
    assert callable(form.content)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_any_unicode_goes_through_turns(texts: list[str]) -> None:
    turns = []
    for text in texts:
        turns += [
            {"role": "user", "content": f"?{text}"},
            {"role": "assistant", "content": f"!{text}"},
        ]
    said = [m.content for m in read({"messages": turns}).messages]
    assert said == [f"{mark}{text}" for text in texts for mark in "?!"]


# ------------------------------------------------------------------ axolotl's chat_template


def taken(tmp_path: Path, record: dict[str, Any], **spec: Any) -> Content:
    (tmp_path / "rows.jsonl").write_text(json.dumps(record) + "\n")
    found = sources(DatasetSpec(path="rows.jsonl", **spec), tmp_path)
    return found.format.content(record)


def test_the_advanced_example_of_its_documentation(tmp_path: Path) -> None:
    record = {
        "conversations": [
            {"from": "system", "value": "You are an AI assistant.", "train": False},
            {"from": "human", "value": "Hello", "train": False},
            {"from": "assistant", "value": "Hello", "train": True},
            {"from": "human", "value": "How are you?", "train": True},
            {"from": "assistant", "value": "I'm doing very well, thank you!"},
            {"from": "human", "value": "I'm doing very well, thank you!", "train": True},
            {"from": "assistant", "value": "Hi there!", "train": False},
        ]
    }
    content = taken(
        tmp_path,
        record,
        format="messages",
        columns={"messages": "conversations"},
        turns={"role": "from", "content": "value", "train": "train"},
    )
    assert [m.role for m in content.messages] == [
        "system",
        *("user", "assistant", "user", "assistant", "user", "assistant"),
    ]
    assert [m.train for m in content.messages] == [None, None, True, None, None, None, False]


def test_turns_are_found_without_a_format_and_need_not_alternate(tmp_path: Path) -> None:
    record = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "human", "value": "b"},
            {"from": "gpt", "value": "c"},
        ]
    }
    with pytest.raises(UnusableError, match="alternate"):
        taken(tmp_path, record)
    content = taken(tmp_path, record, turns={"role": "from", "content": "value"})
    assert [m.content for m in content.messages] == ["a", "b", "c"]


def test_roles_are_mapped_and_their_own_names_stay(tmp_path: Path) -> None:
    record = {
        "messages": [
            {"speaker": "system", "text": "S"},
            {"speaker": "client", "text": "q"},
            {"speaker": "fn", "text": '{"name": "f", "arguments": {}}'},
            {"speaker": "tool", "text": "1"},
            {"speaker": "bot", "text": "a"},
        ]
    }
    spec: dict[str, Any] = {
        "turns": {"role": "speaker", "content": "text"},
        "roles": {"user": ["client"], "assistant": ["bot"], "function_call": ["fn"]},
    }
    content = taken(tmp_path, record, **spec)
    assert [m.role for m in content.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert content.messages[2].tool_calls is not None
    spec["roles"] = {"user": ["client"]}
    with pytest.raises(UnusableError, match="unknown role: 'fn'"):
        taken(tmp_path, record, **spec)


def test_pairs_and_verdicts_take_the_same_mapping(tmp_path: Path) -> None:
    ask, good, bad = ({"who": w, "says": s} for w, s in (("h", "q"), ("b", "good"), ("b", "bad")))
    spec: dict[str, Any] = {
        "turns": {"role": "who", "content": "says"},
        "roles": {"user": ["h"], "assistant": ["b"]},
    }
    pair = taken(tmp_path, {"prompt": [ask], "chosen": [good], "rejected": [bad]}, **spec)
    assert (pair.kind, pair.chosen) == ("preference", (Message("assistant", "good"),))
    judged = taken(tmp_path, {"messages": [ask, bad], "label": False}, **spec)
    assert (judged.kind, judged.label) == ("feedback", False)


def test_a_switch_that_is_none_is_unusable(tmp_path: Path) -> None:
    record = {"messages": [USER, END | {"train": "yes"}]}
    with pytest.raises(UnusableError, match="train is not 0 or 1: 'yes'"):
        taken(tmp_path, record, turns={"train": "train"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"format": "alpaca", "turns": {"role": "from"}}, "turns is for the formats messages"),
        ({"format": "sharegpt", "roles": {"user": ["me"]}}, "roles is for the formats messages"),
        ({"turns": {"text": "value"}}, "text"),
        ({"roles": {"human": ["me"]}}, "human"),
    ],
)
def test_a_mapping_that_says_nothing_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DatasetSpec(path="rows.jsonl", **spec)
