"""Repeated looks at a test set: what each may err by, and what ten of them err by together."""

from __future__ import annotations

import functools
from collections import Counter

import pytest

from evals.verdicts.forgetting import PairedScores, judge_guards
from evals.verdicts.gap import judge_closed
from evals.verdicts.looks import DEV, Level, level_at
from evals.verdicts.stats import Scores, change_bounds, mean_interval
from tests.support import simulated as sim
from tests.support.simulated import EVALS, LIMIT

LOOKS = 10


def test_each_look_has_half_of_what_is_left() -> None:
    assert level_at(1) == Level(interval=0.05, bound=0.025)
    assert level_at(2) == Level(interval=0.025, bound=0.0125)
    assert sum(level_at(look).bound for look in range(1, 200)) == pytest.approx(0.05)
    assert (DEV.of_interval, DEV.of_bound) == (0.95, 0.95)
    with pytest.raises(ValueError, match="counted from 1"):
        level_at(0)


@pytest.mark.parametrize(("n", "rate"), [(200, 0.78), (1000, 0.9)])
def test_ten_looks_at_a_goal_that_is_just_missed(n, rate) -> None:
    drawn = sim.generator("looks", n, rate).binomial(n, rate, (EVALS, LOOKS, 1))

    @functools.cache
    def closed(right: int, look: int) -> bool:
        return mean_interval(sim.alone(right, n), level_at(look).of_interval).low >= rate

    assert sim.share_of_series(drawn, closed) <= LIMIT
    assert sim.share_of_series(drawn, lambda right, _: closed(right, 1)) > 0.15  # unpaid for


@pytest.mark.parametrize(("n", "drop", "gained"), [(300, 0.03, 0.01), (150, 0.05, 0.0)])
def test_ten_looks_at_a_guard_that_lost_just_too_much(n, drop, gained) -> None:
    random = sim.generator("looks", n, drop, gained)
    rates = [drop + gained, gained, 1 - drop - 2 * gained]
    drawn = random.multinomial(n, rates, (EVALS, LOOKS))[..., :2]

    @functools.cache
    def kept(lost: int, got: int, look: int) -> bool:
        return change_bounds(lost, got, n, level_at(look).of_bound)[0] > -drop

    assert sim.share_of_series(drawn, kept) <= LIMIT
    assert sim.share_of_series(drawn, lambda lost, got, _: kept(lost, got, 1)) > 0.15


def test_a_goal_is_judged_at_the_level_and_advised_for_the_next_look() -> None:
    scores = sim.alone(175, 200)  # [.821, .917] at 95%
    first = judge_closed(scores, goal=0.82, margin=0.0, level=level_at(1), later=level_at(2))
    third = judge_closed(scores, goal=0.82, margin=0.0, level=level_at(3), later=level_at(4))
    assert first.score == judge_closed(scores, goal=0.82, margin=0.0).score
    assert (first.verdict, third.verdict) == ("closed", "inconclusive")
    assert third.score.low < first.score.low < first.score.high < third.score.high
    at_dev = judge_closed(sim.alone(170, 200), goal=0.82, margin=0.0).items_to_settle
    again = judge_closed(sim.alone(170, 200), goal=0.82, margin=0.0, later=level_at(4))
    assert at_dev is not None
    assert again.items_to_settle is not None
    assert again.items_to_settle > at_dev


def test_a_guard_is_judged_at_the_level() -> None:
    pairs = sim.changed(4, 2, 300)
    guard = PairedScores("g", tuple(range(300)), pairs, 0.03)
    found = [judge_guards([guard], level_at(look))[0] for look in (1, 6)]
    assert [one.verdict for one in found] == ["kept", "inconclusive"]
    lost = PairedScores("g", tuple(range(300)), sim.changed(17, 5, 300), 0.02)
    assert judge_guards([lost], level_at(1))[0].verdict == "forgotten"  # p = 0.012
    assert judge_guards([lost], level_at(4))[0].verdict == "inconclusive"
    (plain,) = judge_guards([guard])
    assert plain == judge_guards([guard], DEV)[0]
    assert plain.difference.low > found[0].difference.low


def test_a_later_look_at_scores_between_is_stricter_too() -> None:
    values = tuple(0.5 + 0.4 * (i % 3 == 0) for i in range(60))
    scores = Scores(values, tuple(range(60)))
    lows = [mean_interval(scores, level_at(look).of_interval).low for look in range(1, LOOKS + 1)]
    assert lows == sorted(lows, reverse=True)
    assert len(Counter(lows)) == LOOKS
