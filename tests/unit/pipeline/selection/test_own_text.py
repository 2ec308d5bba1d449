"""A base's own text: what it is asked, how much of it, and when it is replayed at all."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.selection.budget import Budget, Supply, first_budget
from pipeline.selection.judge.own_text import instructions, questions, texts_asked
from pipeline.selection.replay import own_text_rows
from pipeline.spec.pool import own_text_share
from pipeline.spec.spec import Spec
from pipeline.spec.train import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

FREE = {"free": {"path": "free.jsonl"}}
GUARDS = {"known": {"data": "known", "answer": "exact", "replay": True}}


def spec(guards: Mapping[str, Any], *, free: bool = False, **train: Any) -> Spec:
    names = [*(one["data"] for one in guards.values() if "data" in one), "rows"]
    pool = ["rows", "free"] if free else ["rows"]
    return Spec.model_validate(
        {
            "bases": {"nano": {"model": "nano"}},
            "datasets": {name: {"path": f"{name}.jsonl"} for name in names} | FREE,
            "capabilities": {"rows": {"data": "rows", "answer": "exact", "goal": 0.9}},
            "guards": dict(guards),
            "train": {"base": "nano", "pool": pool, "budget_rows": 400, **train},
        }
    )


def test_instructions_are_some_hundred_plain_lines_and_each_is_another() -> None:
    lines = instructions()
    assert 200 <= len(lines) <= 500
    assert len({line.lower().rstrip(string.punctuation) for line in lines}) == len(lines)
    assert all(line == line.strip() and 2 < len(line) < 250 for line in lines)


def test_a_larger_count_asks_the_same_first_and_a_third_of_it_nothing() -> None:
    few, many = questions(24), questions(1536)
    assert many[:24] == few
    assert few.count("") == 8
    asked = [question for question in many if question]
    assert sorted(asked) == sorted(instructions())  # each once, and then nothing but empty turns


def test_texts_are_asked_in_steps_and_more_than_wanted() -> None:
    assert [texts_asked(n) for n in (1, 16, 17, 32, 33, 100, 5000)] == [
        *(24, 24, 48, 48, 96, 192, 1536)
    ]


def test_own_text_is_replayed_where_something_has_no_rows_of_its_own() -> None:
    task = GUARDS | {"task": {"lm_eval": "arc_easy"}}
    witness = GUARDS | {"seen": {"data": "seen", "answer": "exact", "replay": False}}
    assert own_text_share(spec(GUARDS)) is None
    assert own_text_share(spec(task)) == 0.05
    assert own_text_share(spec(task, replay=0)) == 0.0  # when mending, only
    assert own_text_share(spec(witness)) == 0.0
    assert own_text_share(spec(task, free=True)) is None  # a chat dataset serves it
    assert own_text_share(spec(task, objective="dpo")) is None


def test_the_spec_has_the_last_word_on_own_text() -> None:
    task = {"task": {"lm_eval": "arc_easy"}}
    assert own_text_share(spec(GUARDS, general=0.1)) == 0.1
    assert own_text_share(spec(GUARDS, free=True, general=0.1)) == 0.1
    assert own_text_share(spec(task, general=0)) is None
    assert own_text_rows(spec(GUARDS, general=0.1), None) == 40
    assert own_text_rows(spec(task), None) == 20
    assert own_text_rows(spec(task), Budget({"rows": 300}, {"own text": 50})) == 50
    assert own_text_rows(spec(task), Budget({"rows": 300}, {})) == 0


def test_own_text_is_beside_replay_in_the_budget() -> None:
    there = {"known": Supply(500, 10.0, 1.0)}
    assert first_budget({"rows": 0.5}, there, 400, 0.2, {"own text": 20}) == Budget(
        {"rows": 300}, {"known": 80, "own text": 20}
    )
    assert first_budget({"rows": 0.5}, there, 400, 0.2) == Budget({"rows": 320}, {"known": 80})


def test_own_text_decides_no_training_by_itself() -> None:
    assert TrainSpec(base="nano", general=0.2).deciding() == TrainSpec(base="nano").deciding()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"objective": "dpo"}, "dpo doesn't learn from the base's own text"),
        ({"replay": 0.9}, "leave none for the gaps"),
    ],
)
def test_own_text_that_can_not_be_trained_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainSpec(base="nano", general=0.2, **given)
