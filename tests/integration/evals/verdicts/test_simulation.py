"""Type I errors and power over 10,000 simulated evals: the decisive cases.

The whole table, which docs/internals/statistics.md shows, is made by test_simulation_table.py.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from evals.verdicts import sample_size, stats
from evals.verdicts.bootstrap import resampled_means
from evals.verdicts.gap import MeasuredCapability, judge_gaps
from evals.verdicts.stats import PairedItems, Scores
from tests.support import simulated as sim
from tests.support import usual_bootstraps as usual
from tests.support.simulated import EVALS, LIMIT

SIZES = pytest.mark.parametrize("n", [50, 200, 1000])
GOALS = (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
MARGIN = 0.02


@SIZES
def test_a_goal_that_is_reached_is_seldom_called_a_gap(n) -> None:
    for goal in GOALS:
        found = sim.share_of_rates(n, goal, lambda k: stats.p_below(sim.alone(k, n), goal) < 0.05)  # noqa: B023
        assert found <= LIMIT, goal


@SIZES
def test_a_goal_that_is_just_missed_is_seldom_called_met(n) -> None:
    for goal in GOALS:
        floor = goal - MARGIN
        found = sim.share_of_rates(
            n,
            floor,
            lambda k: stats.mean_interval(sim.alone(k, n)).low >= floor,  # noqa: B023
        )
        assert found <= LIMIT, goal


@SIZES
def test_the_verdicts_themselves(n) -> None:
    @functools.cache
    def verdict(successes: int) -> str:
        one = MeasuredCapability("c", 0.8, MARGIN, sim.alone(successes, n), 10.0)
        return judge_gaps([one])[0].verdict

    assert sim.share_of_rates(n, 0.8, lambda k: verdict(k) == "tune") <= LIMIT
    assert sim.share_of_rates(n, 0.8 - MARGIN, lambda k: verdict(k) == "met") <= LIMIT


@SIZES
def test_the_interval_leaves_the_rate_out_seldom(n) -> None:
    bounds = functools.cache(lambda k: stats.mean_interval(sim.alone(k, n)))
    for rate in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 0.99):
        missed = sim.share_of_rates(n, rate, lambda k: not bounds(k).low <= rate <= bounds(k).high)  # noqa: B023
        assert missed <= LIMIT


def test_wilson_s_would_not_do() -> None:
    assert sim.share_of_rates(50, 0.99, lambda k: usual.wilson(k, 50).high < 0.99) > 0.08
    wide = functools.cache(lambda k: usual.wilson(k, 50))
    assert sim.share_of_rates(50, 0.5, lambda k: not wide(k).low <= 0.5 <= wide(k).high) > 0.06


@SIZES
@pytest.mark.parametrize("discordant", [0.01, 0.05, 0.2])
def test_mcnemar_seldom_finds_a_change_where_there_is_none(n, discordant) -> None:
    half = discordant / 2
    wrong = sim.share_of_changes(n, half, half, lambda a, b: stats.mcnemar_midp(a, b) <= 0.05)
    assert wrong <= LIMIT


@SIZES
@pytest.mark.parametrize("max_drop", [0.02, 0.05])
def test_a_lost_guard_is_seldom_called_kept(n, max_drop) -> None:
    for gained in (0.0, 0.01, 0.05) if n < 1000 else (0.0, 0.01):
        wrong = sim.share_of_changes(
            n,
            max_drop + gained,
            gained,
            lambda a, b: stats.change_bounds(a, b, n)[0] > -max_drop,
        )
        assert wrong <= LIMIT, gained


@pytest.mark.parametrize("sizes", [np.full(10, 5), sim.cluster_sizes(200, 0.3)], ids=len)
def test_clusters_do_not_make_binary_verdicts_bolder(sizes) -> None:
    assert sim.share_flipped(0.02, 0.02, sizes) <= LIMIT
    assert sim.share_binary_kept(0.06, 0.01, sizes, 0.05) <= LIMIT
    assert max(sim.shares_misjudged(sim.BINARY, sizes, 0.8)) <= LIMIT


@SIZES
def test_a_few_wholly_lost_items_in_clusters_are_seldom_called_kept(n) -> None:
    """The hardest case, with scores between 0 and 1 and three items in ten in clusters."""
    sizes = sim.cluster_sizes(n, 0.3)
    assert sim.share_kept(sim.F1, sim.some_lost, 0.05, sizes, 0.05) <= LIMIT


def test_other_scores_are_judged_as_carefully() -> None:
    fifty, more = np.ones(50, int), np.ones(200, int)
    assert sim.share_kept(sim.F1, sim.rewritten, 0.02, fifty, 0.02) <= LIMIT
    assert sim.share_forgotten(sim.F1, sim.rewritten, 0.0, fifty) <= LIMIT
    for sizes in (fifty, more):
        assert max(sim.shares_misjudged(sim.NEARLY_ALL, sizes, sim.NEARLY_ALL.mean)) <= LIMIT


def test_what_is_simulated_is_what_is_used() -> None:
    """The simulation's shortcut, all evals at once, against the function on one of them."""
    sizes = sim.cluster_sizes(60, 0.3)
    clusters = tuple(np.repeat(np.arange(len(sizes)), sizes).tolist())
    random = sim.generator("same")
    values = sim.differences(sim.F1, sim.rewritten, 0.05, sizes, 40, random)
    lows, _ = resampled_means(sim.sums_of(values, sizes), sizes.astype(float), -1.0, 1.0)
    for column in range(40):
        before = np.maximum(0, -values[:, column])
        pairs = PairedItems(tuple(before), tuple(before + values[:, column]), clusters)
        low = stats.paired_difference(pairs).low
        assert sim.is_above(lows[:, [column]], low - 1e-9, 0.05)
        assert not sim.is_above(lows[:, [column]], low + 1e-9, 0.05)


def test_the_share_that_drops_is_the_one_meant() -> None:
    sizes = sim.cluster_sizes(200, 0.3)
    for kind in sim.KINDS:
        random = sim.generator(kind.name)
        assert sim.scores(kind, sizes, 4000, random).mean() == pytest.approx(kind.mean, abs=2e-3)
        for change in sim.CHANGES.values():
            drops = sim.differences(kind, change, 0.05, sizes, 1000, random)
            assert drops.mean() == pytest.approx(-0.05, abs=2e-3)


@SIZES
def test_holm_and_benjamini_hochberg_over_many_questions(n) -> None:
    random, goals = sim.generator("many", n), (0.5, 0.6, 0.7, 0.8, 0.9)
    p_below = functools.cache(lambda k, goal: stats.p_below(sim.alone(k, n), goal))
    drawn = random.binomial(n, goals, (EVALS, 5)).tolist()
    families = [list(map(p_below, counts, goals)) for counts in drawn]
    assert np.mean([min(stats.holm(family)) < 0.05 for family in families]) <= LIMIT
    midp = functools.cache(stats.mcnemar_midp)
    same = random.multinomial(n, [0.05, 0.05, 0.9], (EVALS, 5))[..., :2].tolist()
    worse = random.multinomial(n, [0.15, 0.05, 0.8], (EVALS, 5))[..., :2].tolist()
    false_share, wrong = [], []
    for five_same, five_worse in zip(same, worse, strict=True):
        p_values = [midp(*one) for one in five_same + five_worse]
        found = [p <= 0.05 for p in stats.benjamini_hochberg(p_values)]
        false_share.append(sum(found[:5]) / max(1, sum(found)))
        wrong.append(min(stats.benjamini_hochberg(p_values[:5])) <= 0.05)
    assert np.mean(false_share) <= LIMIT
    assert np.mean(wrong) <= LIMIT


def sure(count: int | None) -> int:
    assert count is not None
    return count


def test_the_items_advised_settle_it_four_times_in_five() -> None:
    exact = functools.cache(stats.clopper_pearson)
    n = sure(sample_size.items_to_show_rate(sim.alone(77, 100), 0.8))
    assert 0.75 < sim.share_of_rates(n, 0.77, lambda k: exact(k, n).high < 0.8) < 0.9
    n = sure(sample_size.items_to_show_rate(sim.alone(97, 100), 0.95))
    assert 0.75 < sim.share_of_rates(n, 0.97, lambda k: exact(k, n).low > 0.95) < 0.9
    n = sure(sample_size.items_to_show_kept(sim.changed(1, 1, 100), 0.02))
    bounds = functools.cache(stats.change_bounds)
    kept = sim.share_of_changes(n, 0.01, 0.01, lambda a, b: bounds(a, b, n)[0] > -0.02)
    assert 0.75 < kept < 0.9
    n = sure(sample_size.items_to_show_loss(sim.changed(6, 2, 200)))
    lost = sim.share_of_changes(n, 0.03, 0.01, lambda a, b: stats.mcnemar_midp(a, b) <= 0.05)
    assert 0.75 < lost < 0.9


@pytest.mark.parametrize("share", [0, 0.3])
def test_so_do_those_advised_for_other_scores(share) -> None:
    sizes = sim.cluster_sizes(300, share)
    clusters = tuple(np.repeat(np.arange(len(sizes)), sizes).tolist())
    random = sim.generator("advice", share)
    values = sim.differences(sim.F1, sim.rewritten, 0.02, sizes, 1, random)[:, 0]
    before = np.maximum(0, -values)
    pairs = PairedItems(tuple(before), tuple(before + values), clusters)
    n = sure(sample_size.items_to_show_kept(pairs, 0.07))
    assert 0.75 < sim.share_of_more(values, sizes, n, -0.07, 0.05, -1.0) < 0.9
    worse = sim.differences(sim.F1, sim.rewritten, 0.06, sizes, 1, random)[:, 0]
    before = np.maximum(0, -worse)
    pairs = PairedItems(tuple(before), tuple(before + worse), clusters)
    n = sure(sample_size.items_to_show_loss(pairs))
    assert 0.75 < sim.share_of_more(-worse, sizes, n, 0.0, 0.025, -1.0) < 0.9
    seen = sim.scores(sim.NEARLY_ALL, sizes, 1, random)[:, 0]
    floor = seen.mean() - 0.04
    n = sure(sample_size.items_to_show_rate(Scores(tuple(seen), clusters), floor))
    assert 0.75 < sim.share_of_more(seen, sizes, n, floor, 0.025, 0.0) < 0.9
