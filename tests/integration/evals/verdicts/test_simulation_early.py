"""Wrong verdicts and items saved where a score may end early: the decisive cases."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from evals.verdicts.anytime import FINAL, TAIL, batches, rule_for
from evals.verdicts.stats import holm, p_below
from tests.support import simulated as sim
from tests.support import simulated_early as early

LIMIT = 0.0275
"""A side's, nominally 2.5%. Over 10,000 evals, chance adds or takes away 0.3 points."""
MARGIN = 0.02


@pytest.mark.parametrize(("n", "goal"), [(50, 0.8), (200, 0.5), (200, 0.95), (1000, 0.8)])
def test_ending_early_calls_no_more_gaps_and_goals_met_that_are_none(n, goal) -> None:
    one = np.ones(n, int)
    reached = early.shares(early.of_rate(goal), one, goal, goal - MARGIN)
    assert reached.gap <= LIMIT
    assert reached.gap_early <= TAIL
    missed = early.shares(early.of_rate(goal - MARGIN), one, goal, goal - MARGIN)
    assert missed.met <= LIMIT
    assert missed.met_early <= TAIL


@pytest.mark.parametrize("right", [0.3, 1.0])
def test_nor_where_large_clusters_are_answered_otherwise(right) -> None:
    for sizes in (sim.cluster_sizes(200, 0.3), np.array([10] * 20 + [1] * 200)):
        found = early.shares(early.larger_are(right, 0.6), sizes, 0.6, 0.6, evals=4000)
        assert max(found.gap, found.met) <= LIMIT
        assert max(found.gap_early, found.met_early) <= TAIL


def test_nor_for_scores_between_in_clusters() -> None:
    for kind in (sim.F1, sim.NEARLY_ALL):
        sizes = sim.cluster_sizes(200, 0.3)
        found = early.shares(early.of_kind(kind), sizes, kind.mean, kind.mean, evals=4000)
        assert max(found.gap, found.met) <= LIMIT
        assert max(found.gap_early, found.met_early) <= TAIL


def test_looking_as_often_with_an_ordinary_test_would_not_do() -> None:
    ends = np.cumsum([len(batch) for batch in batches(range(1000))])
    random = sim.generator("naive")
    right = np.cumsum(random.random((1000, 4000)) < 0.8, axis=0)[ends - 1]
    p_value = functools.cache(lambda k, n: p_below(sim.alone(k, n), 0.8))
    wrong = [
        any(p_value(k, n) < 0.05 for k, n in zip(one, ends.tolist(), strict=True))
        for one in right.T.tolist()
    ]
    assert np.mean(wrong) > 0.07


def test_five_gaps_that_are_none_are_one_question() -> None:
    n, families = 200, 4000
    values = (sim.generator("five", "early").random((n, 5 * families)) < 0.8) * 1.0
    tail = rule_for(0.8, MARGIN, range(n), family=5).gap_tail
    how, _ = early.ended(values, np.ones(n, int), 0.8, 0.8 - MARGIN, tail)
    assert np.mean((how == early.GAP).reshape(families, 5).any(axis=1)) <= TAIL
    p_value = functools.cache(lambda k: p_below(sim.alone(k, n), 0.8))
    at_last = np.array([p_value(k) for k in values.sum(axis=0).astype(int).tolist()])
    p_values = np.select([how == early.GAP, how == early.MET], [0.0, 1.0], at_last)
    wrong = [
        min(holm(family)) < FINAL.interval for family in p_values.reshape(families, 5).tolist()
    ]
    assert np.mean(wrong) <= LIMIT


@pytest.mark.parametrize(("away", "most"), [(0.1, 0.35), (0.2, 0.1), (0.3, 0.06)])
def test_it_saves_items(away, most) -> None:
    found = early.shares(early.of_rate(0.8 - away), np.ones(1000, int), 0.8, 0.78, evals=2000)
    assert found.gap > 0.999
    assert found.asked < most
