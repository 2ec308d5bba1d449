"""What can be said of items, splits and rows before any model is asked."""

from __future__ import annotations

from typing import Any

import pytest

from evals.tasks.capability import CapabilitySpec, GuardSpec
from pipeline.outlook.finding import Finding
from pipeline.outlook.settled import unsettled
from pipeline.outlook.survey import predicted
from pipeline.spec.subjects import Subject
from registry.datasets.spec import DatasetSpec
from registry.datasets.versions.placed import not_followed


def guard(rows: dict[str, int], **more: Any) -> list[Finding]:
    spec = GuardSpec.model_validate({"data": "d", "answer": "exact", **more})
    return list(unsettled(Subject("g", "guard", spec), rows, 1))


def capability(rows: dict[str, int], family: int = 1, **more: Any) -> list[Finding]:
    spec = CapabilitySpec.model_validate({"data": "d", "answer": "exact", **more})
    return list(unsettled(Subject("c", "capability", spec), rows, family))


def test_a_limit_below_what_is_wanted_is_said_with_the_number_wanted() -> None:
    rows = {"dev": 480, "test": 480}
    (found,) = guard(rows, limit=100, max_drop=0.02)
    assert found.path == ("guards", "g", "limit")
    assert found.what.startswith("100 items in dev (of 480, by limit) and 100 in test (of 480, by")
    assert found.expected == (
        "at least 149 items in dev and 189 in test, if no answer changes, and about 888 if 2% are "
        "lost and as many gained"
    )
    assert (found.fix, found.stops) == ("raise limit, or raise guards.g.max_drop", False)
    assert guard(rows, limit=189, max_drop=0.02) == []  # 1.96 ** 2 / (189 + 1.96 ** 2) < 0.02
    (found,) = guard({"dev": 99, "test": 124}, max_drop=0.03)  # 0.97 ** 99 < 0.05
    assert (found.path, found.what[:21]) == (("guards", "g"), "124 items in test can")
    assert found.fix == "add rows to dev and test, or raise guards.g.max_drop"


def test_a_goal_that_no_answers_could_reach_or_miss_is_said() -> None:
    rows = {"dev": 100, "test": 200}
    (found,) = capability(rows, goal=0.99)  # 0.97 ** 122 < 0.025
    assert found.what.startswith("100 items in dev can never show that the goal is reached")
    assert found.expected == "at least 122 items in dev, if all are answered right"
    (found,) = capability(rows, goal=1.0, margin=0)
    assert (found.path[-1], found.what[:31]) == ("goal", "no number of items can show tha")
    (found,) = capability(rows, goal=0.03)
    assert found.expected == "at least 122 items in dev, if none is answered right"
    assert capability(rows, goal=0.05) == []  # 0.95 ** 72 < 0.025, but not of five capabilities:
    assert len(capability(rows, 5, goal=0.05)) == 1
    assert capability(rows, goal=0.9) == []


def test_a_split_without_an_item_stops_a_run() -> None:
    rows = {"dev": 0, "test": 9}
    for found in (*guard(rows), *capability(rows, goal=0.9)):
        assert (found.stops, found.what[:23]) == (True, "it has no items in dev,")


@pytest.mark.parametrize(
    ("split", "count", "expected"),
    [
        ({}, 300, {"train": 240, "dev": 30, "test": 30}),
        ({"dev": 0.5, "test": 20}, 100, {"train": 30, "dev": 50, "test": 20}),
        ({}, 9, {"train": 9, "dev": 0, "test": 0}),
        ({"dev": 60, "test": 60}, 100, {"train": 0, "dev": 40, "test": 60}),
    ],
)
def test_rows_of_one_file_are_split_as_ingest_splits_them(
    split: dict[str, float], count: int, expected: dict[str, int]
) -> None:
    spec = DatasetSpec.model_validate({"path": "d.csv", "split": split})
    found = predicted(spec, [("train", "sft")] * count)
    assert dict(found.splits) == expected
    assert dict(found.kinds) == ({"sft": count} if expected["train"] else {})


def run(split: dict[str, Any], *files: tuple[str, str, str]) -> dict[str, Any]:
    spec = DatasetSpec.model_validate({"path": "d.csv", "split": split})
    return {"spec": spec.model_dump(mode="json"), "files": [list(file) for file in files]}


def test_a_split_that_committed_rows_do_not_follow_is_said() -> None:
    here, counts = ("d.csv", "train", "0a"), {"train": 240, "dev": 30, "test": 30}
    first, now = run({}, here), DatasetSpec.model_validate({"path": "d.csv", "split": {"dev": 0.3}})
    (said,) = not_followed(now, [here], [first], counts)
    assert said == (
        "dev is 0.3 now and was left to the default, and rows that were ingested stay where they "
        "are: dev has 30 rows, not 90"
    )
    again = run({"dev": 0.3}, here)
    assert not_followed(now, [here], [first, again], counts) == [said]  # still so, still said
    assert not_followed(now, [here], [again], counts) == []  # never said otherwise
    grown = {"train": 640, "dev": 280, "test": 80}  # what came later was put where it is wanted
    assert not_followed(now, [here], [first, again], grown) == []


def test_a_file_that_changed_its_split_is_said() -> None:
    spec = DatasetSpec.model_validate({"path": {"train": "b.csv", "dev": "a.csv", "test": "c.csv"}})
    before = run({}, ("a.csv", "train", "0a"), ("c.csv", "test", "0c"))
    now = [["b.csv", "train", "0b"], ["moved/a.csv", "dev", "0a"], ["c.csv", "test", "0c"]]
    (said,) = not_followed(spec, now, [before, before], {"train": 9, "dev": 9, "test": 9})
    assert said == (
        "a.csv was for train and is for dev now, and its rows that were ingested stay where they "
        "were"
    )
