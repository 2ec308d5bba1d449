"""A row of a free dataset with the base's own answer: what is asked, and what is trained of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.selection.selection import asked_of, render
from pipeline.training.examples.encode import TrainingRow
from pipeline.training.examples.pairs import FeedbackRow, PreferenceRow
from registry.datasets.formats.content import Message
from registry.datasets.versions.row import Row

USER, OTHER = Message("user", "Who?"), Message("user", "And then?")
SAID, WORSE = Message("assistant", "the row's"), Message("assistant", "worse")
OWN = {"role": "assistant", "content": "the base's"}


def row(kind: str, *messages: Message, **more: Any) -> Row:
    given: dict[str, Any] = {
        "chosen": None, "rejected": None, "label": None, "tools": None, **more,
    }  # fmt: skip
    return Row(
        7, "hash", kind, messages, split="train", cluster=1, dataset="chat",
        source_file="chat.jsonl", source_line=3, license="", tags=(), meta="{}", **given,
    )  # fmt: skip


def rendered(one: Row, objective: str, answer: str | None) -> Any:
    train = SimpleNamespace(objective=objective)
    spec = SimpleNamespace(capabilities={}, guards={}, train=train)
    ws: Any = SimpleNamespace(spec=spec)
    return render(ws, one, "chat", answer)


def test_the_last_answer_alone_is_the_base_s_and_alone_is_trained() -> None:
    one = row("sft", Message("system", "Be brief."), USER, SAID, OTHER, WORSE)
    found = rendered(one, "sft", "the base's")
    assert isinstance(found, TrainingRow)
    assert found.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "the row's", "train": False},
        {"role": "user", "content": "And then?"},
        OWN,
    )
    assert found.messages[:-1] == asked_of(one)
    assert found.where == "chat.jsonl:3"
    as_it_stands = rendered(one, "sft", None)
    assert as_it_stands.messages[-1] == {"role": "assistant", "content": "worse"}


def test_a_preference_prefers_what_the_base_says() -> None:
    one = row("preference", USER, chosen=(SAID,), rejected=(WORSE,))
    found = rendered(one, "dpo", "the base's")
    assert isinstance(found, PreferenceRow)
    assert (found.messages, found.chosen) == (asked_of(one), (OWN,))
    assert found.rejected == ({"role": "assistant", "content": "worse"},)
    assert rendered(one, "dpo", None).chosen == ({"role": "assistant", "content": "the row's"},)
    learnt = rendered(one, "sft", "the base's")
    assert learnt.messages == (*asked_of(one), OWN)


@pytest.mark.parametrize("label", [True, False])
def test_feedback_on_the_base_s_own_answer_is_good(label) -> None:
    one = row("feedback", USER, SAID, label=label)
    found = rendered(one, "kto", "the base's")
    assert isinstance(found, FeedbackRow)
    assert (found.messages, found.good) == ((*asked_of(one), OWN), True)
    before = rendered(one, "kto", None)
    assert (before.messages[-1]["content"], before.good) == ("the row's", label)


@pytest.mark.parametrize(
    "one",
    [
        row("text", Message("text", "Once upon a time.")),
        row("sft", SAID),
        row("sft", USER, SAID, tools="[]"),
        row("sft", USER, Message("assistant", "", '[{"name": "look"}]'), OTHER, SAID),
        row("sft", USER, Message("tool", "42"), SAID),
        row("sft", Message("user", "  "), SAID),
        row("preference", USER, SAID, chosen=(SAID,), rejected=(WORSE,)),
    ],
)
def test_what_asks_nothing_that_text_answers_is_not_asked(one) -> None:
    assert asked_of(one) == ()
