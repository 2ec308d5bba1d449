"""How often each test set was looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.catalog.catalog import Catalog
from registry.store.objects import ObjectRef, Parent, Store


class Kept:
    def __init__(self, root: Path) -> None:
        self.store, self.catalog = Store(root), Catalog(root)

    def put(
        self, kind: str, key: str, *parents: tuple[ObjectRef, str], **meta: object
    ) -> ObjectRef:
        named = [Parent(ref.id, role) for ref, role in parents]
        made = self.store.put(kind, None, identity={"key": key}, parents=named, meta=meta)
        self.catalog.commit([made])
        return made

    def scored(self, subject: str, adapter: str | None, split: str = "test") -> ObjectRef:
        key = f"{subject} {adapter} {split}"
        return self.put("eval", key, subject=subject, split=split, adapter_id=adapter)

    def looks(self) -> list[tuple[object, ...]]:
        asked = "SELECT subject, dataset, looks, evaluations FROM looks"
        return self.catalog.sql(asked).rows


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_adapters_are_counted_for_each_test_set(kept: Kept) -> None:
    version = kept.put("dataset_version", "v", name="bank", rows=3)
    base = kept.scored("intent", None)
    for adapter in ("a1", "a2"):
        evals = [(kept.scored("intent", adapter), "eval"), (base, "eval")]
        evals += [(kept.scored("days", adapter, split="dev"), "eval")]
        kept.put("promotion", adapter, *evals, adapter_id=adapter, tests={"intent": version.id})
    assert kept.looks() == [("intent", "bank", 2, 3)]


def test_an_adapter_that_is_asked_another_thing_looks_again(kept: Kept) -> None:
    """As `promote` counts: before, a goal that was moved after test was seen was no look here."""
    version = kept.put("dataset_version", "v", name="bank", rows=3)
    tuned = kept.scored("intent", "a1")
    for look in (1, 2):
        tests = {"intent": version.id}
        kept.put("promotion", f"{look}", (tuned, "eval"), adapter_id="a1", tests=tests, looks=look)
    assert kept.looks() == [("intent", "bank", 2, 1)]


def test_a_look_that_no_promotion_recorded_counts_too(kept: Kept) -> None:
    kept.scored("intent", "killed half-way")
    kept.scored("hellaswag", None)  # the base alone: nothing was chosen by it
    assert kept.looks() == [("hellaswag", None, 0, 1), ("intent", None, 1, 1)]
