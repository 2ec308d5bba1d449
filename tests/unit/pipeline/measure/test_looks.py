"""Looks at test are counted by what is asked of which items, and a moved goal is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.measure.looks import Looks, MovedGoal, looks_at, moved, terms_of
from pipeline.spec.spec import Spec
from registry.catalog.catalog import Catalog
from registry.store.kinds import PromotionMeta
from registry.store.objects import Store
from tests.support.made_versions import Made, Versions, sft

SPEC = {
    "bases": {"nano": {"model": "nano"}},
    "datasets": {"rows": {"path": "rows.csv"}},
    "capabilities": {"intent": {"data": "rows", "answer": "exact", "goal": 0.8}},
    "guards": {"days": {"data": "rows", "answer": "exact", "max_drop": 0.15}},
    "train": {"base": "nano"},
}
STOOD = {
    "intent": {"goal": 0.85, "margin": 0.02},
    "days": {"max_drop": 0.1, "accept": False},
    "jobs": {"max_drop": 0.1, "accept": False},
}


@dataclass
class Kept:
    """As much of a workspace as looks are counted by."""

    store: Store
    catalog: Catalog
    spec: Spec

    def looks(self, tests: dict[str, str], asked: str) -> Looks:
        return looks_at(self.catalog, terms_of(self.spec), tests, asked)

    def promotion(self, asked: str, tests: dict[str, str], **more: Any) -> None:
        meta = {"base": "nano", "adapter_id": "a1", "promoted": False, "split": "test"} | more
        made = self.store.put(
            "promotion",
            None,
            identity={"number": len(self.catalog.committed("promotion"))},
            meta=PromotionMeta.model_validate(meta | {"tests": tests, "asked": asked}),
        )
        self.catalog.commit([made])


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(Store(tmp_path), Catalog(tmp_path), Spec.model_validate(SPEC))


def test_the_same_question_is_one_look_and_another_goal_is_another(kept: Kept) -> None:
    tests = {"intent": "v1"}
    assert kept.looks(tests, "q1").number == 1
    kept.promotion("q1", tests, goals=STOOD, reasons=["intent: the gap is open on test"])
    kept.promotion("q1", tests, goals=STOOD)  # again, by a later gapmend
    kept.promotion("q0", tests, split="dev")  # not a look at test
    assert kept.looks(tests, "q1").number == 1
    assert kept.looks({"intent": "v2"}, "q2").number == 1  # other items
    second = kept.looks(tests, "q2")
    assert second.number == 2
    (earlier,) = second.earlier
    assert (earlier.look, earlier.adapter_id, earlier.promoted) == (1, "a1", False)
    assert earlier.reasons == ("intent: the gap is open on test",)
    assert [str(one) for one in second.moved] == [
        "days: max_drop was 0.1 at look 1 and is 0.15",
        "intent: goal was 0.85 at look 1 and is 0.8",
        "jobs was asked at look 1 and is taken out",
    ]
    kept.promotion("q2", tests, goals=terms_of(kept.spec))
    third = kept.looks(tests, "q3")
    assert third.number == 3
    assert third.moved == second.moved  # the first look is what counts


def test_a_look_that_an_older_gapmend_recorded_counts_by_its_adapter(kept: Kept) -> None:
    kept.promotion("", {"intent": "v1"}, adapter_id="old")
    found = kept.looks({"intent": "v1"}, "q1")
    assert (found.number, found.moved) == (2, ())


def test_a_version_with_one_seen_test_row_was_seen(kept: Kept) -> None:
    versions = Versions(kept.store.root)

    def version(**splits: str) -> str:
        return versions.put([Made(sft(text, "yes"), split) for text, split in splits.items()])

    seen = version(a="test", b="train")
    more = version(a="test", c="test", b="train")
    other = version(b="test", a="train")
    kept.promotion("q1", {"intent": seen})
    assert kept.looks({"intent": more}, "q2").number == 2
    assert kept.looks({"intent": other}, "q3").number == 1


def test_what_moved_is_compared_with_the_first_look_that_asked_for_it() -> None:
    first, then = {"a": {"goal": 0.9}}, {"a": {"goal": 0.8}, "b": {"max_drop": 0.1}}
    assert moved({"a": {"goal": 0.9}, "b": {"max_drop": 0.1}}, [(1, first), (2, then)]) == ()
    assert moved(then | {"c": {"goal": 0.1}}, [(1, first)]) == (
        MovedGoal("a", "goal", 0.9, 0.8, 1),
    )
