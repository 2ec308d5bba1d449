"""Each format: what a record becomes, and why one that can't be used is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry.datasets.formats.content import Content, Message
from registry.datasets.formats.format import SHAPES, Format
from registry.datasets.formats.turns import UnusableError

CALL = '[{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]'


def read(name: str, record: dict[str, Any], **columns: str) -> Content:
    return Format(SHAPES[name], columns).content(record)


def said(content: Content) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in content.messages]


def reason(name: str, record: dict[str, Any], **columns: str) -> str:
    with pytest.raises(UnusableError) as raised:
        read(name, record, **columns)
    return str(raised.value)


def test_columns_are_a_question_and_its_answer_and_the_rest_is_meta() -> None:
    form = Format(SHAPES["columns"], {"input": "text", "output": "label"})
    record = {"text": "hi", "label": 3, "z": float("nan"), "lang": "de"}
    assert said(form.content(record)) == [("user", "hi"), ("assistant", "3")]
    assert json.loads(form.meta(record)) == {"lang": "de", "z": None}


def test_columns_take_a_system_text_only_if_it_is_mapped() -> None:
    record = {"input": "q", "output": "a", "system": "windows"}
    assert said(read("columns", record))[0] == ("user", "q")
    assert said(read("columns", record, system="system"))[0] == ("system", "windows")


@pytest.mark.parametrize("empty", ["", "  \n", None])
def test_an_empty_answer_is_unusable(empty: object) -> None:
    assert reason("columns", {"input": "q", "output": empty}) in (
        "empty answer",
        "output is missing",
    )
    assert reason("columns", {"input": empty, "output": "a"}) in (
        "empty question",
        "input is missing",
    )


def test_alpaca_joins_the_parts_that_are_there_and_keeps_history() -> None:
    record = {
        "instruction": "Add.",
        "input": "1 2",
        "output": "3",
        "system": "Be brief.",
        "history": [["hello", "hi"]],
    }
    assert said(read("alpaca", record)) == [
        ("system", "Be brief."),
        ("user", "hello"),
        ("assistant", "hi"),
        ("user", "Add.\n1 2"),
        ("assistant", "3"),
    ]
    assert said(read("alpaca", {"instruction": "", "input": "x", "output": "y"}))[0][1] == "x"


def test_sharegpt_keeps_calls_results_and_tools() -> None:
    record = {
        "conversations": [
            {"from": "system", "value": "S"},
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "[1]"},
            {"from": "gpt", "value": "a"},
        ],
        "system": "overridden by the turn",
        "tools": '[{"name": "f", "parameters": {}}]',
    }
    content = read("sharegpt", record)
    assert [m.role for m in content.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert content.messages[0].content == "S"
    assert content.messages[2] == Message("assistant", "", tool_calls=CALL)
    assert json.loads(content.tools or "")[0]["function"]["name"] == "f"
    assert read("sharegpt", record | {"tools": "[]"}).tools is None


def test_sharegpt_that_does_not_alternate_is_unusable() -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]
    assert reason("sharegpt", {"conversations": turns}).startswith("turns don't alternate: turn 2")
    assert "no answer" in reason("sharegpt", {"conversations": turns[:1]})
    odd = [{"from": "alien", "value": "a"}]
    assert reason("sharegpt", {"conversations": odd}) == "unknown role: 'alien'"


def test_openai_messages_with_tool_calls_parts_and_weights() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    record = {
        "messages": [
            {"role": "developer", "content": "S"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "1", "name": "f"},
            {"role": "assistant", "content": "x", "weight": 0},
        ]
    }
    content = read("messages", record)
    assert said(content)[:2] == [("system", "S"), ("user", "ab")]
    assert content.messages[2].tool_calls == CALL
    assert content.messages[3].name == "f"
    assert content.messages[4].train is False
    picture = [{"role": "user", "content": [{"type": "image_url"}]}]
    assert reason("messages", {"messages": picture}) == "a part of a turn is not text: image_url"


def test_prompt_and_completion_as_texts_and_as_messages() -> None:
    expected = [("user", "q"), ("assistant", "a")]
    assert said(read("prompt_completion", {"prompt": "q", "completion": "a"})) == expected
    turns = {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}],
    }
    assert said(read("prompt_completion", turns)) == expected


def test_preference_pairs_explicit_and_with_a_shared_prefix() -> None:
    plain = read("preference", {"prompt": "q", "chosen": "good", "rejected": "bad"})
    ask = {"role": "user", "content": "q"}
    whole = {
        "chosen": [ask, {"role": "assistant", "content": "good"}],
        "rejected": [ask, {"role": "assistant", "content": "bad"}],
    }
    assert read("preference", whole) == plain
    assert plain.kind == "preference"
    assert plain.messages == (Message("user", "q"),)
    assert plain.chosen == (Message("assistant", "good"),)
    same = {"prompt": "q", "chosen": "a", "rejected": "a"}
    assert reason("preference", same) == "chosen and rejected are the same"


def test_text_is_one_message_of_its_own_role() -> None:
    assert read("text", {"text": "Es war einmal"}) == Content(
        "text", (Message("text", "Es war einmal"),)
    )
    assert reason("text", {"text": " "}) == "empty text"


def test_bytes_and_odd_cells_are_unusable_and_not_an_error() -> None:
    form = Format(SHAPES["columns"])
    with pytest.raises(UnusableError, match="raw bytes"):
        form.meta({"input": "q", "output": "a", "blob": b"x"})
    assert reason("columns", {"input": ["q"], "output": "a"}) == "input is not text: list"
    assert reason("sharegpt", {"conversations": "{oops"}).startswith("the conversation: not JSON")
