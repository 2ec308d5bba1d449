"""The format is found from the first record, with the reason, and never by a guess at a meaning."""

from __future__ import annotations

from typing import Any

import pytest

from registry.datasets.formats.detect import detect, why_not

SHAREGPT_TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
OPENAI_TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("instruction input output", "alpaca"),
        ("conversations tools", "sharegpt"),
        ("messages", "messages"),
        ("prompt completion", "prompt_completion"),
        ("prompt chosen rejected", "preference"),
        ("chosen rejected", "preference"),
        ("input output lang", "columns"),
        ("text", "text"),
        ("text label", None),
        ("foo bar", None),
        ("prompt", None),
        ("prompt completions labels", None),
        ("instruction input chosen rejected", None),
        ("question answer", None),
    ],
)
def test_the_format_is_found_from_the_columns(keys: str, expected: str | None) -> None:
    found = detect(dict.fromkeys(keys.split()), {})
    assert (found and found.name) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, "feedback"),
        ({"prompt": "q", "completion": "a", "label": "False"}, "feedback"),
        ({"messages": OPENAI_TURNS, "label": False}, "feedback"),
        ({"conversations": SHAREGPT_TURNS, "label": False}, "feedback"),
        ({"prompt": "q", "completion": "a", "label": 1}, "prompt_completion"),  # 1 of how many?
        ({"messages": OPENAI_TURNS, "label": "sports"}, "messages"),
        ({"instruction": "q", "output": "a", "label": True}, None),
        ({"instruction": "q", "output": "a", "label": "sports"}, "alpaca"),
        ({"conversations": OPENAI_TURNS}, "messages"),
        ({"messages": SHAREGPT_TURNS}, "sharegpt"),
    ],
)
def test_values_tell_verdicts_from_labels_and_dialects_apart(
    record: dict[str, Any], expected: str | None
) -> None:
    found = detect(record, {})
    assert (found and found.name) == expected


def test_mapped_columns_decide_the_format_first() -> None:
    found = detect({"text": 1, "messages": 1}, {"input": "text", "output": "y"})
    assert found is not None
    assert (found.name, found.why) == ("columns", "the spec maps input and output")
    judged = detect({"prompt": "q", "completion": "a", "stars": 1}, {"label": "stars"})
    assert judged is not None
    assert judged.name == "feedback"
    chat = detect({"chat": SHAREGPT_TURNS}, {"messages": "chat"})
    assert chat is not None
    assert (chat.name, chat.columns) == ("sharegpt", {})


def test_the_reason_names_what_was_seen() -> None:
    found = detect({"conversations": OPENAI_TURNS}, {})
    assert found is not None
    assert found.why == "its first record has conversations, whose turns have role, content"
    assert found.columns == {"messages": "conversations"}


def test_what_is_not_taken_says_why() -> None:
    assert "prompt-only" in why_not({"prompt": "q"})
    assert "stepwise" in why_not({"prompt": "q", "completions": ["a"], "labels": [True]})
    assert "ranking: true" in why_not({"instruction": "", "chosen": "", "rejected": ""})
    assert "map its columns" in why_not({"a": 1})
