"""The bootstrap over clusters: its corners, its symmetry, and SciPy's beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sp

from evals.verdicts import bootstrap, stats
from evals.verdicts.bootstrap import RESAMPLES, ResampledMeans, resample
from evals.verdicts.stats import PairedItems, Scores

UNIT = st.floats(0, 1)


def pairs_of(before, after, size: int = 1) -> PairedItems:
    """Pairs in clusters of `size` neighbours."""
    return PairedItems(
        tuple(map(float, before)),
        tuple(map(float, after)),
        tuple(i // size for i in range(len(before))),
    )


@st.composite
def graded(draw, least: int = 3) -> PairedItems:
    """Pairs that are not all 0 and 1, some in clusters."""
    n = draw(st.integers(least, 40))
    before, after = (draw(st.lists(UNIT, min_size=n, max_size=n)) for _ in range(2))
    before[0] = 0.5
    return pairs_of(before, after, draw(st.integers(1, 3)))


@given(graded())
def test_exchanged_before_and_after_the_bounds_are_mirrored(pairs) -> None:
    there = stats.paired_difference(pairs)
    back = stats.paired_difference(PairedItems(pairs.after, pairs.before, pairs.clusters))
    assert back.low == pytest.approx(-there.high, abs=1e-12)
    assert back.high == pytest.approx(-there.low, abs=1e-12)
    assert stats.change_p(pairs) == stats.change_p(
        PairedItems(pairs.after, pairs.before, pairs.clusters)
    )


@given(graded())
def test_the_same_scores_give_the_same_bounds_and_the_mean_is_between_them(pairs) -> None:
    interval = stats.paired_difference(pairs)
    assert interval == stats.paired_difference(pairs)
    assert -1 <= interval.low <= interval.mean <= interval.high <= 1


@given(graded(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_difference_is_significant_where_its_bound_is_beyond_nothing(pairs, confidence) -> None:
    # Each bound of paired_difference is one-sided: two of them make a test at twice the level.
    tested = stats.paired_difference(pairs, 1 - (1 - confidence) / 2)
    significant = stats.change_p(pairs) < 1 - confidence
    assert significant == (tested.low > 0 or tested.high < 0)


@given(st.lists(UNIT, min_size=3, max_size=40), st.integers(1, 3), UNIT)
def test_a_goal_is_missed_where_the_upper_bound_is_below_it(values, size, goal) -> None:
    scores = Scores((0.5, *values), tuple(i // size for i in range(len(values) + 1)))
    interval = stats.mean_interval(scores)
    assert (stats.p_below(scores, goal) < 0.05) == (interval.high < goal)
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1


@pytest.mark.parametrize(("right", "n"), [(0, 12), (3, 20), (50, 50), (170, 200)])
def test_for_right_and_wrong_it_is_clopper_and_pearson_s(right, n) -> None:
    """Up to the noise of the resamples: four standard errors of a tail of 2.5%."""
    resampled = resample([1.0] * right + [0.0] * (n - right), range(n), 0.0, 1.0)
    exact, noise = stats.clopper_pearson(right, n), 4 * (0.025 * 0.975 / RESAMPLES) ** 0.5
    if right:
        assert resampled.p_at_most(exact.low) == pytest.approx(0.025, abs=noise)
    if right < n:
        assert resampled.p_at_least(exact.high) == pytest.approx(0.025, abs=noise)


def test_few_identical_differences_leave_much_open() -> None:
    """Ten times the same small loss: as open as a rate is after ten successes."""
    same = stats.paired_difference(pairs_of([0.5] * 10, [0.49] * 10))
    unseen = stats.clopper_pearson(10, 10, 0.9).low  # one-sided at 95%
    assert same.low == pytest.approx(-0.01 - (1 - unseen) * 0.99, abs=0.01)
    assert same.high > 0.2


@pytest.mark.parametrize("seed", range(5))
def test_scipy_s_bounds_are_inside_and_no_farther_than_the_unseen_item(seed) -> None:
    random, n = np.random.default_rng(seed), 300
    before, after = random.beta(2, 3, n), random.beta(2, 3, n)
    ours = stats.paired_difference(pairs_of(before, after))
    for method in ("percentile", "BCa"):
        theirs = sp.bootstrap(
            (before, after), lambda b, a, axis: (a - b).mean(axis=axis), paired=True,
            vectorized=True, confidence_level=0.9, n_resamples=4_000, method=method, rng=seed,
        ).confidence_interval  # fmt: skip
        noise = 0.002
        # The unseen item is worse by 1 and weighs Exp(1) / n: 3/n and more in one case of twenty.
        assert theirs.low - 3 / n - noise < ours.low < theirs.low + noise
        assert theirs.high - noise < ours.high < theirs.high + 3 / n + noise


def test_more_items_narrow_it() -> None:
    random = np.random.default_rng(4)
    before, after = random.random(60), random.random(60)
    widths = []
    for times in (1, 4, 16):
        interval = stats.paired_difference(pairs_of(np.tile(before, times), np.tile(after, times)))
        widths.append(interval.high - interval.low)
    assert widths[0] > 1.8 * widths[1] > 3.2 * widths[2]


def test_copies_in_the_same_cluster_do_not() -> None:
    random = np.random.default_rng(5)
    before, after = random.random(60), random.random(60)
    once = stats.paired_difference(pairs_of(before, after))
    thrice = stats.paired_difference(pairs_of(before.repeat(3), after.repeat(3), 3))
    assert thrice.low == pytest.approx(once.low)
    assert thrice.high == pytest.approx(once.high)
    alone = stats.paired_difference(pairs_of(before.repeat(3), after.repeat(3)))
    assert alone.high - alone.low < 0.7 * (once.high - once.low)


def test_a_single_cluster_is_one_item() -> None:
    one = stats.mean_interval(Scores((0.5,) * 30, (7,) * 30))
    assert one.low == pytest.approx(0.5 * 0.025, abs=0.01)
    assert one.high == pytest.approx(1 - 0.5 * 0.025, abs=0.01)


def test_the_bounds_are_counted_from_the_ends() -> None:
    """Of 1,999 means: 49 lie below the bound at 2.5%, as 50 of 2,000 gaps between them do."""
    assert RESAMPLES == 1_999
    ranked = np.arange(1_999.0)
    means = ResampledMeans(ranked, ranked + 5_000, -1, 9_999)
    assert (means.low(0.025), means.low(0.05), means.low(0.0004)) == (49, 99, 0)
    assert (means.high(0.025), means.high(0.05), means.high(0.0004)) == (6_949, 6_899, 6_998)
    assert (means.low(1e-9), means.high(1e-9)) == (-1, 9_999)  # no mean is far enough out
    assert means.p_at_most(49) == 50.5 / 2_000
    assert means.p_at_most(48.5) == 49.5 / 2_000
    assert means.p_at_least(6_949) == 50.5 / 2_000
    assert means.p_at_least(6_949.5) == 49.5 / 2_000
    assert means.p_at_most(-1) == means.p_at_least(9_999) == 0.5 / 2_000


@pytest.mark.parametrize("bound", [0.3, 0.5, 0.7, 0.9])
def test_the_unseen_cluster_is_as_large_as_that_of_a_random_item(bound) -> None:
    """Perfect items in clusters of 1 and 3: an unseen one of (1 + 9) / 4 items is against them.

    The mean is at most b where the seen weight is at most b / (1 - b) of the unseen one, which is
    exponential: with the chance that a product of moment-generating functions gives.
    """
    resampled = resample([1.0] * 4, [0, 1, 1, 1], 0.0, 1.0)
    per_item = (1 - bound) / bound / 2.5
    chance = 1 / (1 + per_item) / (1 + 3 * per_item)
    noise = 4 * (chance * (1 - chance) / RESAMPLES) ** 0.5
    assert resampled.p_at_most(bound) == pytest.approx(chance, abs=noise)
    assert set(resampled.highs) == {1.0}
    worst = resample([0.0] * 4, [0, 1, 1, 1], 0.0, 1.0)
    assert worst.p_at_least(1 - bound) == pytest.approx(chance, abs=noise)
    assert set(worst.lows) == {0.0}


def test_weights_that_are_drawn_in_parts_are_the_same(monkeypatch) -> None:
    values = np.random.default_rng(6).random(40).tolist()
    whole = resample(values, range(40), 0.0, 1.0)
    monkeypatch.setattr(bootstrap, "_CELLS", 40 * 300)  # 300 resamples at a time, and 199
    parts = resample(values, range(40), 0.0, 1.0)
    assert parts.lows == pytest.approx(whole.lows, abs=1e-12)
    assert parts.highs == pytest.approx(whole.highs, abs=1e-12)
    monkeypatch.setattr(bootstrap, "_CELLS", 1)
    assert resample(values, range(40), 0.0, 1.0).lows == pytest.approx(whole.lows, abs=1e-12)


def test_the_order_of_items_and_the_names_of_clusters_say_nothing() -> None:
    values, clusters = [0.2, 0.9, 0.4, 0.4, 1.0], [7, 3, 7, 5, 3]
    one = resample(values, clusters, 0.0, 1.0)
    other = resample(values[::-1], [number * 2 for number in clusters[::-1]], 0.0, 1.0)
    assert one.lows == pytest.approx(other.lows)
    assert list(one.lows) == sorted(one.lows)
    assert list(one.highs) == sorted(one.highs)
    assert all(one.highs > one.lows)


def test_the_means_are_those_of_exponential_weights_and_an_unseen_cluster() -> None:
    """Clusters of 1, 3 and 2 items: the unseen one has 14/6, its weights spread evenly."""
    sizes, sums = np.array([1.0, 3.0, 2.0]), np.array([[1.0, 0.0], [0.5, 3.0], [2.0, 0.25]])
    weights = np.random.default_rng(0).standard_exponential((RESAMPLES, 3))
    unseen = 14 / 6 * sp.expon.isf((np.arange(RESAMPLES) + 0.5) / RESAMPLES)
    lows, highs = bootstrap.resampled_means(sums, sizes, -1.0, 0.5)
    for found, score in ((lows, -1.0), (highs, 0.5)):
        for column in (0, 1):
            total = weights @ sums[:, column] + score * unseen
            assert found[:, column] == pytest.approx(total / (weights @ sizes + unseen), rel=1e-9)


@pytest.mark.parametrize("past", [0.0, 0.494, 0.506, 0.75])
def test_the_bound_is_where_the_p_value_crosses_the_tail(past) -> None:
    """With k resamples beyond it, p is (k + .5) / 2000: so many of them are below the tail."""
    for whole in (0, 1, 49, 600, 1500):
        tail = (whole + past) / 2000
        below = sum((k + 0.5) / 2000 < tail for k in range(2000))
        means = ResampledMeans(np.arange(1_999.0), np.arange(1_999.0), -1, 1_999)
        assert means.low(tail) == below - 1
        assert means.high(tail) == 1_999 - below


def test_a_small_tail_has_resamples_of_its_own() -> None:
    """Of n right answers, the lower bound is tail^(1/n), as Clopper and Pearson's is."""
    right, alone = [1.0] * 60, range(60)
    for tail in (0.025, 0.05 / 2**6, 0.05 / 2**10):
        found = resample(right, alone, 0.0, 1.0, tail)
        assert found.low(tail) == pytest.approx(tail ** (1 / 60), abs=0.01)
    assert len(resample(right, alone, 0.0, 1.0, 0.025).lows) == RESAMPLES
