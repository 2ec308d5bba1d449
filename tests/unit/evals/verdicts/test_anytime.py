"""Scores that end early: bets that are fair however often they are looked at, and their rule."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from evals.verdicts.anytime import (
    FINAL,
    STAKES,
    TAIL,
    EarlyRule,
    Ended,
    batches,
    log_bets,
    log_mean,
    rule_for,
)
from evals.verdicts.anytime import RULE as RULE_NAME
from evals.verdicts.gap import ArmScore, MeasuredCapability, judge_gaps
from evals.verdicts.looks import DEV, Level
from evals.verdicts.stats import Scores, mean_interval
from tests.support import simulated as sim
from tests.support import simulated_early as early

RULE = rule_for(0.8, 0.02, range(1000))


def fortunes(throws: list[tuple[float, int]], goal: float, largest: int) -> list[float]:
    """What the bet comes to after each cluster, given as its total and its size."""
    logs, found = np.zeros((len(STAKES), 1)), []
    for total, size in throws:
        logs += log_bets(np.array([[total]]), np.array([float(size)]), goal, largest)
        found.append(math.exp(float(log_mean(logs)[0])))
    return found


@pytest.mark.parametrize("goal", [0.3, 0.8])
def test_whoever_bets_on_a_gap_that_is_none_seldom_wins_however_often_he_looks(goal) -> None:
    """Every series of ten answers, right at the rate of the goal."""
    mean, ever = 0.0, Counter[float]()
    for answers in itertools.product((0.0, 1.0), repeat=10):
        chance = math.prod(goal if right else 1 - goal for right in answers)
        found = fortunes([(right, 1) for right in answers], goal, 1)
        mean += chance * found[-1]
        for alpha in (0.5, 0.2, 0.05):
            ever[alpha] += chance * (max(found) >= 1 / alpha)
    assert mean == pytest.approx(1)
    assert ever[0.5] > 0.1
    assert all(chance <= alpha for alpha, chance in ever.items())


def test_the_mean_that_is_bet_on_is_that_of_items_not_of_clusters() -> None:
    """Clusters of three are right, items alone wrong: 3 of 4 items, and half of the clusters."""
    kinds = [(3.0, 3), (0.0, 1)]  # as likely as each other
    every = list(itertools.product(kinds, repeat=6))
    assert np.mean([fortunes(list(one), 0.75, 3)[-1] for one in every]) == pytest.approx(1)
    means = [[(total / size, 1) for total, size in one] for one in every]
    assert np.mean([fortunes(one, 0.75, 1)[-1] for one in means]) > 2
    ever = [max(fortunes(list(one), 0.75, 3)) >= 2 for one in every]
    assert 0 < np.mean(ever) <= 0.5


def test_the_bet_is_the_mean_of_its_stakes_whatever_the_order() -> None:
    won = 0.8 / 0.2
    for right, n in ((0, 1), (7, 20), (60, 100)):
        known = [(1 - stake) ** right * (1 + stake * won) ** (n - right) for stake in STAKES]
        p_value = min(1, 1 / np.mean(known))
        scores = sim.alone(right, n)
        assert RULE.p_gap(scores) == pytest.approx(p_value)
        mirrored = Scores(scores.values[::-1], scores.clusters)
        assert RULE.p_gap(mirrored) == pytest.approx(p_value)
    assert RULE.p_gap(sim.alone(99, 100)) == 1
    assert RULE.p_met(sim.alone(60, 100)) == 1


def test_a_score_may_end_where_it_is_clearly_below_the_goal_or_above_the_floor() -> None:
    assert not RULE.settled(sim.alone(24, 32))
    assert RULE.settled(sim.alone(12, 32))
    assert not RULE.settled(sim.alone(31, 32))
    assert RULE.settled(sim.alone(62, 64))
    five = rule_for(0.8, 0.02, range(1000), family=5)
    assert five == replace(RULE, gap_tail=TAIL / 5)
    unclear = [
        k for k in range(33) if RULE.settled(sim.alone(k, 32)) != five.settled(sim.alone(k, 32))
    ]
    assert unclear == [16]


def test_its_interval_is_what_the_rule_doesn_t_refute() -> None:
    scores = Scores((1.0, 0.0, 0.5, 0.2, 0.9, 0.4) * 10, tuple(i // 2 for i in range(60)))
    rule = rule_for(0.9, 0.0, scores.clusters)
    found = rule.interval(scores)
    assert (found.mean, found.n) == (scores.mean, 60)
    assert 0 < found.low < found.mean < found.high < 1
    for gap in (1e-6, -1e-6):
        at = replace(rule, goal=found.high + gap, floor=found.low - gap)
        assert (at.p_gap(scores) <= TAIL) is (gap > 0)
        assert (at.p_met(scores) <= TAIL) is (gap > 0)
    turned = rule.interval(replace(scores, values=tuple(1 - value for value in scores.values)))
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
    wider = replace(rule, largest=4).interval(scores)  # another cluster might be larger
    assert wider.low < found.low < found.high < wider.high
    exact = mean_interval(sim.alone(60, 100), 0.99)
    ours = RULE.interval(sim.alone(60, 100))
    assert ours.low < exact.low < exact.high < ours.high


def test_at_the_ends_of_the_scale() -> None:
    whole = rule_for(1.0, 0.0, range(100))
    assert whole.settled(sim.alone(31, 32))  # one that is wrong is enough
    assert not whole.settled(sim.alone(100, 100))
    assert whole.interval(sim.alone(100, 100)).high == 1
    assert whole.interval(sim.alone(0, 100)).low == 0
    assert whole.p_gap(sim.alone(31, 32)) == pytest.approx(len(STAKES) / sum(STAKES) * 1e-9)
    assert rule_for(0.01, 0.02, range(100)).settled(sim.alone(0, 32))  # a floor below 0 is met
    assert not rule_for(0.01, 0.0, range(100)).settled(sim.alone(0, 32))
    assert rule_for(0.5, 0.0, [1, 1, 1, 2]).largest == 3
    assert rule_for(0.5, 0.0, []).largest == 1
    assert 0.98 < RULE.interval(sim.alone(599, 600)).high < 1


def test_a_figure_that_changes_is_another_rule() -> None:
    """Raise RULE's version with any of them: what ended early before must not be found again."""
    assert RULE_NAME == {"rule": "bets on a grid", "version": 1}
    assert STAKES == (0.04, 0.08, 0.16, 0.3, 0.5, 0.75, 0.95)
    assert (0.005, Level(interval=0.04, bound=0.04)) == (TAIL, FINAL)
    ends = list(itertools.accumulate(len(batch) for batch in batches(range(300))))
    assert ends == [32, 64, 96, 128, 160, 200, 250, 300]


def test_items_are_asked_by_whole_clusters_in_an_order_of_their_own() -> None:
    clusters = [0] * 5 + list(range(1, 900)) + [7, 8, 9] * 3
    found = list(batches(clusters))
    assert sorted(itertools.chain(*found)) == list(range(len(clusters)))
    of = [{clusters[position] for position in batch} for batch in found]
    assert sum(map(len, of)) == len(set(clusters))
    ends = list(itertools.accumulate(map(len, found)))
    assert 32 <= ends[0] < 32 + 5
    steps = list(itertools.pairwise(ends[:-1]))
    assert len(steps) > 8
    assert all(
        max(32, before / 4) <= after - before <= max(32, before / 4) + 6 for before, after in steps
    )
    order = list(range(len(clusters)))
    random.Random(0).shuffle(order)
    again = [
        [clusters[at] for at in order][position]
        for position in next(batches([clusters[at] for at in order]))
    ]
    assert sorted(again) == sorted(clusters[position] for position in found[0])
    assert list(batches([3, 1, 3])) == [(0, 1, 2)]
    assert list(batches([])) == []


def test_a_verdict_is_that_of_the_rule_and_says_after_how_many_items() -> None:
    ended = Ended(RULE, 2000)
    gap = MeasuredCapability("a", 0.8, 0.02, sim.alone(12, 32), 20.0, ended=ended)
    met = MeasuredCapability("b", 0.8, 0.02, sim.alone(63, 64), 20.0, ended=ended)
    prompt = ArmScore("few_shot_5", sim.alone(600, 1000), sim.alone(20, 64), 9.0, Ended(RULE, 1000))
    tried = replace(gap, capability="c", arms=(prompt,))
    found = judge_gaps([gap, met, tried], FINAL)
    assert [one.verdict for one in found] == ["tune", "met", "tune"]
    assert [one.base_of for one in found] == [2000] * 3
    assert [one.best_prompt_of for one in found] == [None, None, 1000]
    assert found[0].base == RULE.interval(gap.base)
    assert found[2].best_prompt_interval == RULE.interval(prompt.half_b)
    assert found[0].p_value == RULE.p_gap(gap.base) < found[0].p_holm < TAIL * 3
    assert found[1].p_value == 1
    assert "] after 32 of 2,000 items is below the goal 0.8" in found[0].reason
    assert "] after 64 of 1,000 items on the half it wasn't chosen on" in found[2].reason
    enough = replace(prompt, half_b=sim.alone(63, 64))
    (one,) = judge_gaps([replace(gap, arms=(enough,))], FINAL)
    assert one.verdict == "prompt"


def test_what_did_not_end_early_is_judged_at_what_is_left_of_the_error() -> None:
    close = MeasuredCapability("c", 0.8, 0.02, sim.alone(743, 1000), 20.0)
    for right in range(740, 800):  # the last that is a gap at 2.5%, no longer at 2%
        one = replace(close, base=sim.alone(right, 1000))
        if judge_gaps([one])[0].verdict == "tune" != judge_gaps([one], FINAL)[0].verdict:
            break
    else:
        pytest.fail("both judge alike")
    finding = judge_gaps([one], FINAL)[0]
    assert finding.base == mean_interval(one.base, 0.96)
    assert finding.base.high >= 0.8 > judge_gaps([one], DEV)[0].base.high
    assert finding.base_of is None
    assert TAIL + FINAL.interval / 2 == pytest.approx(DEV.interval / 2)


def test_what_is_simulated_is_what_is_used() -> None:
    random, goal, floor = sim.generator("same"), 0.6, 0.55
    for sizes in (np.ones(150, int), sim.cluster_sizes(150, 0.3)):
        owner = np.repeat(np.arange(len(sizes)), sizes)
        values = sim.scores(sim.F1, sizes, 30, random) * random.choice((0.5, 1.0), 30)
        values = np.maximum(values, random.choice((0.0, 0.9), 30))
        rule = EarlyRule(goal, floor, int(sizes.max()))
        how, asked = early.ended(values, sizes, goal, floor)
        assert set(how) == {early.NOT_ENDED, early.GAP, early.MET}
        for column in range(30):
            *looked_at, _ = batches(owner.tolist())
            so_far: list[int] = []
            for batch in looked_at:
                so_far += batch
                scores = Scores(
                    tuple(values[so_far, column].tolist()), tuple(owner[so_far].tolist())
                )
                if rule.settled(scores):
                    assert asked[column] == len(so_far)
                    expected = early.MET if rule.p_met(scores) <= TAIL else early.GAP
                    assert how[column] == expected
                    break
            else:
                assert how[column] == early.NOT_ENDED
                assert asked[column] == 150
