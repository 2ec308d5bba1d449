"""Which capabilities the pool can't teach, and why."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.spec.pool import DatasetRows, untaught
from pipeline.spec.spec import Spec

TAUGHT = DatasetRows({"train": 5, "dev": 2}, {"sft": 5})
NONE = DatasetRows({"dev": 30, "test": 1200}, {})
PAIRS = DatasetRows({"train": 5}, {"preference": 5})


def spec(pool: list[str], objective: str = "sft") -> Spec:
    given: dict[str, Any] = {
        "bases": {"nano": {"model": "nano"}},
        "datasets": {name: {"path": f"{name}.csv"} for name in ("a", "b", "chat")},
        "capabilities": {name: {"data": name, "answer": "exact", "goal": 0.9} for name in "ab"},
        "train": {"base": "nano", "pool": pool, "objective": objective},
    }
    return Spec.model_validate(given)


def test_rows_of_its_own_dataset_or_of_a_free_one_teach() -> None:
    assert untaught(spec(["a", "b"]), {"a": TAUGHT, "b": TAUGHT}) == {}
    assert untaught(spec([]), {"a": TAUGHT, "b": TAUGHT}) == {}  # the capabilities' own
    assert untaught(spec(["a", "chat"]), {"a": NONE, "chat": TAUGHT}) == {}
    assert untaught(spec(["a", "chat"]), {"a": NONE}) == {}  # not looked at: taken to have some


def test_without_a_row_for_training_the_reason_says_where_they_are() -> None:
    assert untaught(spec(["a", "b"]), {"a": TAUGHT, "b": NONE}) == {
        "b": "none of the 1,230 rows of dataset 'b' is for training (30 in dev and 1,200 in test)"
    }
    assert untaught(spec(["a"]), {"a": TAUGHT}) == {"b": "its dataset 'b' is not in train.pool"}
    empty = {"a": TAUGHT, "b": DatasetRows({}, {})}
    assert untaught(spec(["a", "b"]), empty) == {"b": "dataset 'b' has no row that can be used"}
    assert list(untaught(spec(["a", "chat"]), {"a": NONE, "chat": NONE})) == ["a", "b"]


def test_rows_that_are_all_held_out_teach_nothing() -> None:
    held = DatasetRows({"train": 5}, {"sft": 5}, {"exact": 1, "near-duplicate": 4})
    assert untaught(spec(["a", "b"]), {"a": TAUGHT, "b": held}) == {
        "b": "each of the 5 rows of dataset 'b' for training is in a dev or test set too (1 exact "
        "and 4 near-duplicate)"
    }
    assert list(untaught(spec(["a", "chat"]), {"a": held, "chat": held})) == ["a", "b"]


@pytest.mark.parametrize(
    ("objective", "rows", "taught"),
    [
        ("sft", PAIRS, True),
        ("dpo", PAIRS, True),
        ("orpo", TAUGHT, False),
        ("kto", PAIRS, False),
        ("sft", DatasetRows({"train": 5}, {"feedback": 5}), False),
        ("sft", DatasetRows({"train": 5}, {"text": 5}), True),
    ],
)
def test_an_objective_learns_from_rows_of_its_kind_alone(
    objective: str, rows: DatasetRows, taught: bool
) -> None:
    found = untaught(spec(["a", "b"], objective), {"a": rows, "b": rows})
    assert (found == {}) == taught
    assert taught or found["a"].startswith(f"{objective} learns from ")
