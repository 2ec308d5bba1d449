"""The arithmetic of bench-method, its pool, and its targets; no model is asked."""

from __future__ import annotations

import importlib
import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def bench(project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One of the benchmark's modules by its name; they are no package."""
    monkeypatch.syspath_prepend(str(project_root / "benchmarks"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"_method_{name}")

    return load


def result(arm: str, seed: int, tuned: str, **other: Any) -> dict[str, Any]:
    scored = {"base": "0000", "tuned": tuned, "mean": tuned.count("1") / 4, "reached": True}
    kept = {"base": "1110", "tuned": tuned}
    return {
        "base": "nano",
        "arm": arm,
        "seed": seed,
        "capabilities": {"form": scored},
        "replayed": {"jobs": kept},
        "witnesses": {"colours": kept},
        "replayed_moved": {"lost": 0.0, "gained": 0.0},
        "witnesses_moved": {"lost": 0.02, "gained": 0.0},
        "kl": None,
        "wrong_share": 0.0,
        "deciding_tokens": 10,
        "tokens": 100,
        "all_tokens": 100,
        "rows": 4,
        "seconds": 1.0,
    } | other


def test_the_pool_has_what_it_says_in_its_shares(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = bench("pool")
    others = [pools.Pair(f"other {at}", "said") for at in range(700)]
    monkeypatch.setattr(pools, "alpaca", lambda _count: others)
    train = {
        name: [pools.Pair(f"{name} {at}", "ab"[at % 2]) for at in range(size)]
        for name, size in (
            ("one", 600),
            ("two", 600),
            ("three", 600),
            ("short", 90),
            ("long", 4000),
        )
    }
    gaps: dict[str, Any] = {"one": {}, "two": {}, "three": {}}
    rows = pools.pool(pools.Field(gaps, {}, train, {}, {}, {}), random.Random(0))
    counts = Counter(fact.kind for _, fact in rows)
    assert counts == {"mastered": 3000, "wrong": 500, "irrelevant": 500, "gap": 1000}
    assert Counter(fact.task for _, fact in rows)["short"] == 90  # all that there are
    wrong = [fact.task in gaps for _, fact in rows if fact.kind == "wrong"]
    assert sum(wrong) == 125  # of the gaps, as they are a quarter of what has an answer
    right = {pair.asked: pair.answer for made in train.values() for pair in made}
    assert all(
        (right[pair.asked] == pair.answer) == (fact.kind != "wrong")
        for pair, fact in rows
        if fact.kind != "irrelevant"
    )


def test_rows_are_divided_evenly_and_labels_take_turns(bench: Any) -> None:
    figures = bench("figures")
    assert figures.parts(800, 3) == [266, 267, 267]
    assert figures.even([1, 2, 3, 4, 5], ["a", "a", "a", "b", "a"], 4) == [1, 4, 2, 3]


def test_every_arm_trains_the_same_tokens(bench: Any) -> None:
    figures = bench("figures")
    assert [round(figures.epochs_for(9_600, rows) * rows) for rows in (4_800, 6_400)] == [9600] * 2


def test_what_moved_is_a_share_of_what_the_base_got_right(bench: Any) -> None:
    guards = {"jobs": {"base": "1100", "tuned": "1010"}, "days": {"base": "11", "tuned": "11"}}
    assert bench("figures").moved(guards) == {"lost": 0.25, "gained": 0.25}


def test_means_have_standard_errors_and_one_seed_has_none(bench: Any) -> None:
    figures = bench("figures")
    assert figures.mean_and_error([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / math.sqrt(3)))
    mean, error = figures.mean_and_error([0.5])
    assert mean == 0.5
    assert math.isnan(error)


def test_seeds_are_paired(bench: Any) -> None:
    over_seeds = bench("figures").over_seeds
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3), two degrees of freedom
    assert over_seeds([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(0.0742, abs=1e-4)
    assert over_seeds([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert math.isnan(over_seeds([1.0], [0.0]))


def test_items_are_tested_by_their_signs(bench: Any) -> None:
    over_items = bench("figures").over_items
    assert over_items([1.0] * 8) == 2 / 2**8  # of all assignments two are as far from zero
    assert over_items([1.0, -1.0, 1.0, -1.0]) == 1.0
    assert over_items([0.0, 0.0]) == 1.0
    assert over_items([0.5, 0.0]) == 1.0


def test_an_item_is_averaged_over_seeds_and_a_guard_where_the_base_is_right(bench: Any) -> None:
    first = [result("shipped", 0, "1100"), result("shipped", 1, "1000")]
    second = [result("balanced", 0, "1001"), result("balanced", 1, "0000")]
    differences = bench("figures").item_differences
    assert differences(first, second, "capabilities") == [0.5, 0.5, 0.0, -0.5]
    assert differences(first, second, "witnesses") == [0.5, 0.5, 0.0]


def test_each_missed_target_is_a_line(bench: Any) -> None:
    report = bench("report")
    fine = [result("balanced", 0, "1000"), result("shipped", 0, "1100")]
    assert list(report.check(fine)) == []
    bad: dict[str, Any] = {"wrong_share": 0.2, "deciding_tokens": 900}
    bad["witnesses_moved"] = {"lost": 0.5, "gained": 0.0}
    missed = list(report.check([fine[0], result("shipped", 0, "0000", **bad)]))
    assert [line.split(":")[1].split()[0] for line in missed] == [
        "witness_loss",
        "wrong_share",
        "deciding",
        "score",
    ]


def test_the_report_has_a_line_for_each_arm_and_each_test(bench: Any) -> None:
    arms = ("random", "balanced", "shipped")
    lines = list(bench("report").report([result(arm, 0, "1100") for arm in arms]))
    assert [line for line in lines if line.startswith("|shipped|1|")]
    assert len([line for line in lines if line.startswith("|shipped|balanced|")]) == 4
