"""The fewest items that can settle a verdict are those with which the verdict's own test does."""

from __future__ import annotations

import pytest

from evals.verdicts.forgetting import PairedScores, judge_guards
from evals.verdicts.gap import MeasuredCapability, judge_closed, judge_gaps
from evals.verdicts.looks import DEV, Level, level_at
from evals.verdicts.sample_size import (
    least_to_keep,
    least_to_miss,
    least_to_reach,
    usual_to_keep,
)
from evals.verdicts.stats import PairedItems, Scores

LEVELS = [DEV, level_at(1), level_at(3)]


def alike(value: float, n: int) -> Scores:
    return Scores((value,) * n, tuple(range(n)))


def kept(n: int, max_drop: float, level: Level, lost: int = 0, gained: int = 0) -> str:
    before = (1.0,) * lost + (0.0,) * gained + (1.0,) * (n - lost - gained)
    after = (0.0,) * lost + (1.0,) * gained + (1.0,) * (n - lost - gained)
    pairs = PairedItems(before, after, tuple(range(n)))
    return judge_guards([PairedScores("g", tuple(range(n)), pairs, max_drop)], level)[0].verdict


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("max_drop", [0.01, 0.02, 0.03, 0.1, 0.3, 0.98])
def test_a_guard_that_loses_nothing_is_kept_from_there_on(max_drop: float, level: Level) -> None:
    least = least_to_keep(max_drop, level.of_bound)
    assert kept(least, max_drop, level) == "kept"
    assert least == 1 or kept(least - 1, max_drop, level) == "inconclusive"
    assert usual_to_keep(max_drop, level.of_bound) >= least


@pytest.mark.parametrize("level", LEVELS)
def test_a_guard_with_usual_changes_is_kept_by_so_many(level: Level) -> None:
    n = usual_to_keep(0.02, level.of_bound)
    changes = round(0.02 * n)
    assert kept(n, 0.02, level, changes, changes) == "kept"
    assert kept(n // 3, 0.02, level, changes // 3, changes // 3) == "inconclusive"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("floor", [0.0, 0.1, 0.5, 0.88, 0.97, 0.999])
def test_a_goal_that_every_item_reaches_is_closed_from_there_on(floor: float, level: Level) -> None:
    def verdict(n: int) -> str:
        return judge_closed(alike(1.0, n), goal=floor, margin=0, level=level).verdict

    least = least_to_reach(floor, level.of_interval)
    assert least is not None
    assert verdict(least) == "closed"
    assert least == 1 or verdict(least - 1) != "closed"


def test_no_number_of_items_shows_a_mean_of_one() -> None:
    assert least_to_reach(1.0) is None


@pytest.mark.parametrize("goal", [0.01, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("family", [1, 4])
def test_a_goal_that_no_item_reaches_is_a_gap_from_there_on(goal: float, family: int) -> None:
    def verdict(n: int) -> str:
        one = [MeasuredCapability(f"c{i}", goal, 0.0, alike(0.0, n), 9.0) for i in range(family)]
        return judge_gaps(one)[0].verdict

    least = least_to_miss(goal, family)
    assert least is not None
    assert verdict(least) == "tune"
    assert least == 1 or verdict(least - 1) == "inconclusive"
