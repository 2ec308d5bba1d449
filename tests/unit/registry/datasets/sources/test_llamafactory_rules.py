"""LLaMA-Factory's rules, one test each, on entries as its users have them (its converter.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.datasets.formats.content import Content
from registry.datasets.formats.turns import UnusableError
from registry.datasets.sources.llamafactory import Entry, read_entry
from registry.datasets.sources.resolve import source_files, sources
from registry.datasets.spec import DatasetSpec
from registry.errors import UserError
from registry.hub.dataset import HubSource


def entry(place: Path, /, **described: Any) -> Entry:
    (place / "rows.json").write_text("[]")
    if "file_name" not in described and "hf_hub_url" not in described:
        described["file_name"] = "rows.json"
    (place / "dataset_info.json").write_text(json.dumps({"entry": described}))
    return read_entry(place, "entry")


def said(content: Content) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in content.messages]


@pytest.mark.parametrize(
    ("prompt", "query", "user"),
    [
        ("Translate.", "Guten Tag", "Translate.\nGuten Tag"),
        ("Translate.", "", "Translate."),
        ("Translate.", None, "Translate."),
        ("", "Guten Tag", "Guten Tag"),
        (None, "Guten Tag", "Guten Tag"),
        ("Translate.\n", "Guten Tag", "Translate.\n\nGuten Tag"),
    ],
)
def test_the_user_says_prompt_newline_query_and_empty_parts_are_skipped(
    tmp_path: Path, prompt: str | None, query: str | None, user: str
) -> None:
    record = {"instruction": prompt, "input": query, "output": "Good day"}
    assert said(entry(tmp_path).format.content(record))[0] == ("user", user)


def test_columns_may_name_query_alone(tmp_path: Path) -> None:
    form = entry(tmp_path, columns={"query": "q", "response": "a"}).format
    assert said(form.content({"q": "x", "a": "y", "instruction": "no"})) == [
        ("user", "x"),
        ("assistant", "y"),
    ]


def test_an_unlisted_column_is_none_in_a_conversation_too(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    record = {"conversations": turns, "system": "S", "tools": '[{"name": "f"}]'}
    bare = entry(tmp_path, formatting="sharegpt", columns={"messages": "conversations"}).format
    assert (said(bare.content(record))[0][0], bare.content(record).tools) == ("user", None)
    named = {"messages": "conversations", "system": "system", "tools": "tools"}
    full = entry(tmp_path, formatting="sharegpt", columns=named).format
    assert said(full.content(record))[0] == ("system", "S")
    assert '"name": "f"' in str(full.content(record).tools)


def test_without_a_columns_block_system_and_tools_are_none_by_default(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    form = entry(tmp_path, formatting="sharegpt").format
    assert said(form.content({"conversations": turns, "system": "S"}))[0] == ("user", "q")


def test_a_tags_block_makes_an_unlisted_tag_none(tmp_path: Path) -> None:
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
    }  # as ultrachat_200k has it: no system_tag
    form = entry(tmp_path, formatting="sharegpt", columns={"messages": "m"}, tags=tags).format
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert said(form.content({"m": turns})) == [("user", "q"), ("assistant", "a")]
    with pytest.raises(UnusableError, match="unknown role: 'system'"):
        form.content({"m": [{"role": "system", "content": "S"}, *turns]})


def test_a_leading_system_turn_overrides_the_column_and_a_later_one_is_out_of_order(
    tmp_path: Path,
) -> None:
    columns = {"messages": "conversations", "system": "system"}
    form = entry(tmp_path, formatting="sharegpt", columns=columns).format
    ask, answer = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
    system = {"from": "system", "value": "turn"}
    record = {"conversations": [system, ask, answer], "system": "column"}
    assert said(form.content(record))[0] == ("system", "turn")
    assert sum(role == "system" for role, _ in said(form.content(record))) == 1
    with pytest.raises(UnusableError, match="don't alternate: turn 3 is system's"):
        form.content({"conversations": [ask, answer, system, ask, answer]})


CALL = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
SEEN = {"from": "observation", "value": "[1]"}
ASK = {"from": "human", "value": "q"}
ANSWER = {"from": "gpt", "value": "a"}


@pytest.mark.parametrize(
    ("turns", "ok"),
    [
        ([ASK, ANSWER], True),
        ([ASK, CALL, SEEN, ANSWER], True),
        ([ASK, CALL, SEEN, CALL, SEEN, ANSWER, ASK, ANSWER], True),
        ([ASK, CALL], True),
        ([SEEN, ANSWER, ASK, ANSWER], True),  # odd places are user or observation
        ([ASK, ANSWER, ASK], False),
        ([ASK, ASK, ANSWER], False),
        ([ASK, CALL, ANSWER], False),
        ([ASK, CALL, SEEN, SEEN, ANSWER], False),
        ([ANSWER, ASK, ANSWER], False),
    ],
)
def test_user_or_observation_and_assistant_or_call_alternate_strictly(
    tmp_path: Path, turns: list[dict[str, str]], ok: bool
) -> None:
    form = entry(tmp_path, formatting="sharegpt").format
    if ok:
        assert len(form.content({"conversations": turns}).messages) == len(turns)
        return
    with pytest.raises(UnusableError, match=r"alternate|no answer"):
        form.content({"conversations": turns})


def test_history_turns_are_kept_before_the_question(tmp_path: Path) -> None:
    columns = {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
    }
    form = entry(tmp_path, columns=columns).format
    record = {
        "instruction": "And now?",
        "input": "",
        "output": "Later.",
        "system": "Be brief.",
        "history": [["Hi", "Hello"], ["What time is it?", "Noon."]],
    }
    assert said(form.content(record)) == [
        ("system", "Be brief."),
        *(("user", "Hi"), ("assistant", "Hello")),
        *(("user", "What time is it?"), ("assistant", "Noon.")),
        *(("user", "And now?"), ("assistant", "Later.")),
    ]
    assert said(form.content(record | {"history": None}))[1] == ("user", "And now?")
    del columns["history"]
    unlisted = entry(tmp_path, columns=columns).format
    assert said(unlisted.content(record))[1] == ("user", "And now?")


def test_ranking_reads_pairs_of_alpaca_and_of_conversations(tmp_path: Path) -> None:
    columns = {
        "prompt": "instruction",
        "query": "input",
        "chosen": "chosen",
        "rejected": "rejected",
    }
    form = entry(tmp_path, ranking=True, columns=columns).format
    pair = form.content({"instruction": "i", "input": "q", "chosen": "good", "rejected": "bad"})
    assert (pair.kind, said(pair)) == ("preference", [("user", "i\nq")])
    named = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    form = entry(tmp_path, ranking=True, formatting="sharegpt", columns=named).format
    answers = {"chosen": ANSWER, "rejected": {"from": "gpt", "value": "b"}}
    assert form.content({"conversations": [ASK], **answers}).kind == "preference"
    with pytest.raises(UnusableError, match="alternate"):  # an answer is there already
        form.content({"conversations": [ASK, ANSWER], **answers})
    with pytest.raises(UnusableError, match="not the assistant's"):
        form.content({"conversations": [ASK], **answers, "chosen": ASK})


@pytest.mark.parametrize("tag", [True, False])
def test_kto_tags_are_real_booleans(tmp_path: Path, tag: bool) -> None:
    columns = {"prompt": "instruction", "response": "output", "kto_tag": "label"}
    form = entry(tmp_path, columns=columns).format
    record: dict[str, Any] = {"instruction": "q", "output": "a", "label": tag}
    assert form.content(record).label is tag
    for odd in (int(tag), str(tag).lower(), None):
        with pytest.raises(UnusableError, match="label is not true or false"):
            form.content(record | {"label": odd})


def test_openai_formatting_takes_calls_and_several_results_and_adds_no_system_text(
    tmp_path: Path,
) -> None:
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "observation_tag": "tool",
        "function_tag": "function",
        "system_tag": "system",
    }
    form = entry(tmp_path, formatting="openai", columns={"messages": "m"}, tags=tags).format
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "a"},
    ]
    content = form.content({"m": turns})
    assert [m.role for m in content.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert "thinking" not in str(content)  # its silent "detailed thinking off"
    with pytest.raises(UnusableError, match="alternate"):
        form.content({"m": [turns[0], turns[0], turns[-1]]})


def test_a_prompt_alone_is_plain_text_as_its_pretraining_sets_have_it(tmp_path: Path) -> None:
    form = entry(tmp_path, columns={"prompt": "text"}).format
    content = form.content({"text": "Once upon a time"})
    assert (content.kind, said(content)) == ("text", [("text", "Once upon a time")])


def test_the_hub_goes_before_a_script_and_a_script_before_a_file(tmp_path: Path) -> None:
    everything = {"hf_hub_url": "me/rows", "script_url": "s.py", "file_name": "rows.json"}
    found = entry(tmp_path, **everything, ms_hub_url="other/rows")
    assert (found.hub, found.files) == (HubSource("me/rows"), ())
    with pytest.raises(UserError, match=r"script_url s\.py, and a dataset's script is never run"):
        entry(tmp_path, script_url="s.py", file_name="rows.json")
    assert entry(tmp_path, file_name="rows.json").files[0][1] == "rows.json"


def test_revision_subset_split_and_folder_are_the_hubs(tmp_path: Path) -> None:
    described = {
        "hf_hub_url": "me/rows",
        "revision": "v1",
        "subset": "en",
        "split": "train_sft",
        "folder": "python",
    }
    assert entry(tmp_path, **described).hub == HubSource(
        "me/rows", "v1", "en", "python", {"train": "train_sft"}
    )
    with pytest.raises(UserError, match="subset is 3; expected a text"):
        entry(tmp_path, hf_hub_url="me/rows", subset=3)


def test_beside_the_file_there_is_no_other_split(tmp_path: Path) -> None:
    assert entry(tmp_path, split="train").files
    with pytest.raises(UserError, match="split is 'test', and files beside it are train alone"):
        entry(tmp_path, split="test")


def test_file_name_may_be_a_folder_whose_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "b.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    (tmp_path / "many" / "a.csv").write_text("instruction,output\nq,a\n")
    entry(tmp_path, file_name="many/", num_samples=7)
    spec = DatasetSpec(path=str(tmp_path), format="llamafactory", name="entry")
    assert [f.label for f in source_files(spec, tmp_path.parent)] == [
        f"{tmp_path.name}/many/a.csv",
        f"{tmp_path.name}/many/b.jsonl",
    ]
    assert sources(spec, tmp_path.parent).num_samples == 7
    (tmp_path / "many" / "notes.md").write_text("x")
    with pytest.raises(UserError, match=r"not data files that can be read: notes\.md"):
        entry(tmp_path, file_name="many/")
