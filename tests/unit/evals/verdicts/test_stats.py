"""The statistics against SciPy, statsmodels and enumeration; by simulation: test_simulation.py."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sp
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from evals.verdicts import sample_size, stats
from evals.verdicts.bootstrap import resample
from evals.verdicts.stats import PairedItems, Scores
from tests.support import usual_bootstraps as usual

RATES = st.tuples(st.integers(0, 200), st.integers(1, 200)).map(lambda t: (min(t), max(t)))


def alone(values) -> Scores:
    """Scores without shared clusters."""
    return Scores(tuple(float(v) for v in values), tuple(range(len(values))))


def changes(lost: int, gained: int, n: int, size: int = 1) -> PairedItems:
    """N pairs, of which some are lost or gained, in clusters of `size` neighbours."""
    before = [1.0] * lost + [0.0] * gained + [1.0] * (n - lost - gained)
    after = [0.0] * lost + [1.0] * gained + [1.0] * (n - lost - gained)
    return PairedItems(tuple(before), tuple(after), tuple(i // size for i in range(n)))


@settings(deadline=None)
@given(RATES)
def test_wilson_and_clopper_pearson_are_those_of_statsmodels(rate) -> None:
    from statsmodels.stats.proportion import proportion_confint  # loads pandas

    k, n = rate
    for ours, method in ((usual.wilson, "wilson"), (stats.clopper_pearson, "beta")):
        low, high = proportion_confint(k, n, 0.05, method)
        assert ours(k, n).low == pytest.approx(low, abs=1e-9)
        assert ours(k, n).high == pytest.approx(high, abs=1e-9)
        assert ours(k, n).mean == k / n


@settings(deadline=None)
@given(RATES, st.floats(0.05, 0.95) | st.just(1.0))
def test_p_below_agrees_with_the_interval(rate, goal) -> None:
    k, n = rate
    scores = alone([1] * k + [0] * (n - k))
    p, interval = stats.p_below(scores, goal), stats.mean_interval(scores)
    if abs(interval.high - goal) > 1e-9:
        assert (p < 0.05) == (interval.high < goal)


@settings(deadline=None)
@given(st.integers(0, 25), st.integers(0, 25))
def test_mcnemar_midp_is_the_enumerated_one(lost, gained) -> None:
    n = lost + gained
    extreme = abs(lost - gained)
    weights = [math.comb(n, k) / 2**n for k in range(n + 1)]
    beyond = sum(w for k, w in enumerate(weights) if abs(n - 2 * k) > extreme)
    same = sum(w for k, w in enumerate(weights) if abs(n - 2 * k) == extreme)
    expected = 1.0 if lost == gained else beyond + same / 2
    assert stats.mcnemar_midp(lost, gained) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_midp_is_the_exact_test_less_half_of_what_was_seen() -> None:
    exact = sp.binomtest(3, 13).pvalue
    assert stats.mcnemar_midp(3, 10) == pytest.approx(exact - sp.binom.pmf(3, 13, 0.5))


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_sign_flips_over_clusters_are_the_enumerated_ones(sums) -> None:
    before, after, clusters = [], [], []
    for cluster, total in enumerate(sums):
        for _ in range(abs(total)):
            before.append(float(total < 0))
            after.append(float(total > 0))
            clusters.append(cluster)
        before.append(1.0)
        after.append(1.0)
        clusters.append(cluster)
    seen = abs(sum(sums))
    flipped = [
        abs(sum(sign * total for sign, total in zip(signs, sums, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    tail = sum(f > seen for f in flipped) + sum(f == seen for f in flipped) / 2
    expected = 1.0 if seen == 0 else tail / len(flipped)
    pairs = PairedItems(tuple(before), tuple(after), tuple(clusters))
    assert stats.change_p(pairs) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_holm_and_benjamini_hochberg_are_those_of_statsmodels_and_scipy(seed) -> None:
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(seed)
    p_values = np.round(rng.random(rng.integers(1, 9)) ** 3, 2).tolist()
    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    adjusted = sp.false_discovery_control(p_values)
    assert stats.benjamini_hochberg(p_values) == pytest.approx(adjusted)


def test_the_cluster_error_is_that_of_statsmodels() -> None:
    from statsmodels.regression.linear_model import OLS

    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 12, 80)
    values = rng.random(80) + clusters / 12
    fit = OLS(values, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert stats.cluster_error(tuple(values), tuple(clusters)) == pytest.approx(fit.bse[0])


def test_copies_of_every_item_add_no_certainty() -> None:
    values = [1.0] * 30 + [0.0] * 20
    once = stats.mean_interval(alone(values))
    thrice = stats.mean_interval(Scores(tuple(values * 3), tuple(range(50)) * 3))
    assert thrice.low == pytest.approx(once.low, abs=0.01)
    assert thrice.high == pytest.approx(once.high, abs=0.01)
    pairs, copies = changes(8, 2, 100), changes(24, 6, 300, size=1)
    same = PairedItems(copies.before, copies.after, tuple(i // 3 for i in range(300)))
    assert stats.paired_difference(same).low == pytest.approx(
        stats.paired_difference(pairs).low, abs=0.01
    )
    assert stats.change_p(same) == pytest.approx(stats.change_p(pairs))
    assert stats.change_p(copies) < stats.change_p(pairs) / 2


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(120, 500), st.integers(1, 4))
def test_the_difference_lies_within_its_bounds(lost, gained, n, size) -> None:
    pairs = changes(lost, gained, n, size)
    interval = stats.paired_difference(pairs)
    assert -1 <= interval.low <= interval.mean <= interval.high <= 1
    mirrored = stats.paired_difference(PairedItems(pairs.after, pairs.before, pairs.clusters))
    assert mirrored.low == pytest.approx(-interval.high, abs=1e-9)
    assert mirrored.high == pytest.approx(-interval.low, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(30, 300))
def test_tangos_bound_is_where_the_score_test_is_at_z(gained, lost, n) -> None:
    """The restricted maximum of the likelihood, found numerically, gives the test's variance."""
    z = 1.6448536269514722
    low = stats._tango_low(gained, lost, n, z)

    def unlikely(loss_rate: float) -> float:
        gain_rate = loss_rate + low
        rest = 1 - loss_rate - gain_rate
        if min(gain_rate, rest) < 0:
            return math.inf
        parts = ((gained, gain_rate), (lost, loss_rate), (n - gained - lost, rest))
        return -sum(k * math.log(max(rate, 1e-300)) for k, rate in parts if k)

    bounds = (max(0.0, -low), (1 - low) / 2)
    best = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12})
    variance = n * (2 * best.x + low - low * low)
    assert (gained - lost - n * low) / math.sqrt(variance) == pytest.approx(z, abs=1e-3)


def test_unchanged_answers_show_little_when_they_are_few() -> None:
    assert stats.paired_difference(changes(0, 0, 10)).low < -0.2
    needed = sample_size.items_to_show_kept(changes(0, 0, 10), 0.02)
    assert needed == 149
    assert stats.paired_difference(changes(0, 0, needed)).low > -0.02
    assert stats.paired_difference(changes(0, 0, needed - 1)).low < -0.02


def sure(count: int | None) -> int:
    assert count is not None
    return count


def test_one_miss_shows_that_a_goal_of_1_is_missed() -> None:
    for values in ([1] * 20 + [0], [1] * 20 + [0.5]):
        assert stats.mean_interval(alone(values)).high < 1
        assert stats.p_below(alone(values), 1.0) < 0.05
    needed = sure(sample_size.items_to_show_rate(alone([1] * 20 + [0]), 1.0))
    assert 1 - (20 / 21) ** needed == pytest.approx(0.8, abs=0.01)  # that there is a miss at all
    assert sample_size.items_to_show_rate(alone([1] * 20 + [0.5]), 1.0) is not None


def test_all_right_is_at_the_exact_bound_when_the_advice_says_so() -> None:
    for bound in (0.9, 0.98):
        needed = sure(sample_size.items_to_show_rate(alone([1] * 5), bound))
        assert stats.mean_interval(alone([1] * needed)).low >= bound
        assert stats.mean_interval(alone([1] * (needed - 1))).low < bound


def test_scores_with_hardly_any_spread_need_the_items_that_the_interval_asks_for() -> None:
    def scores(n: int) -> stats.Scores:
        return alone([0.0001 * (i % 2) for i in range(n)])

    assert stats.mean_interval(scores(22)).high > 0.05
    needed = sure(sample_size.items_to_show_rate(scores(22), 0.05))
    assert 22 < needed < 100
    assert stats.mean_interval(scores(needed + 2)).high < 0.05


@pytest.mark.parametrize("n", [50, 60, 100, 200, 1000])
@pytest.mark.parametrize("max_drop", [0.01, 0.02, 0.03, 0.05])
def test_kept_is_said_of_a_lost_guard_in_at_most_55_of_1000(n, max_drop) -> None:
    """Exact type I error at the edge of the hypothesis, by enumeration of (lost, gained)."""
    rates = (0.0, 0.001, 0.01, 0.025, 0.03, 0.05, 0.1) if n < 1000 else (0.0, 0.001, 0.01, 0.03)
    top = int(sp.binom.ppf(1 - 1e-6, n, max_drop + rates[-1])) + 1
    lowest_kept, gained = {}, 0  # the more are lost, the more must be gained to be kept
    for lost in range(top):
        while gained < n - lost and stats._lowest_change(gained, lost, n, 0.95) <= -max_drop:
            gained += 1
        lowest_kept[lost] = gained
    for gain_rate in rates:
        loss_rate = max_drop + gain_rate
        error = sum(
            sp.binom.pmf(lost, n, loss_rate)
            * sp.binom.sf(gained - 1, n - lost, gain_rate / (1 - loss_rate))
            for lost, gained in lowest_kept.items()
        )
        assert error <= 0.055


@settings(deadline=None)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(31, 400))
def test_more_losses_never_raise_the_bound_and_more_gains_never_lower_it(lost, gained, n) -> None:
    low, high = stats.change_bounds(lost, gained, n)
    for more_lost, less_gained in ((lost + 1, gained), (lost, max(0, gained - 1))):
        worse = stats.change_bounds(more_lost, less_gained, n)
        assert worse[0] <= low + 1e-12
        assert worse[1] <= high + 1e-12


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 2, 50), (1, 4, 50), (1, 3, 200), (0, 1, 60)])
def test_the_bound_of_few_losses_is_the_bootstrap_s_in_closed_form(lost, gained, n) -> None:
    random = np.random.default_rng(1)
    draws = 400_000
    worse, better, same = (
        random.standard_gamma(shape, draws) for shape in (lost + 1, gained, n - lost - gained)
    )
    chance = np.mean((better - worse) / (worse + better + same) <= -0.02)
    assert stats._few_lost_chance(gained, lost, n, -0.02) == pytest.approx(chance, abs=0.003)


def test_with_nothing_gained_the_bound_is_clopper_and_pearson_s() -> None:
    for lost in (0, 1, 5):
        low, _ = stats.change_bounds(lost, 0, 100)
        assert low == pytest.approx(-stats.clopper_pearson(lost, 100, 0.9).high)
        if lost < 2:
            assert stats._few_lost_chance(0, lost, 100, low) == pytest.approx(0.05)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_shared_clusters_keep_the_error_down(seed) -> None:
    """Items in clusters of five that answer alike: the interval must not believe n items."""
    rng = np.random.default_rng(seed)
    clusters = tuple(np.repeat(np.arange(40), 5).tolist())
    values = tuple(np.repeat((rng.random(40) < 0.6).astype(float), 5).tolist())
    interval = stats.mean_interval(Scores(values, clusters))
    believed = stats.clopper_pearson(round(sum(values)), 200)
    width, naive = interval.high - interval.low, believed.high - believed.low
    assert width > 1.8 * naive


def test_wrong_scores_are_refused() -> None:
    for wrong in (1.2, -0.2, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Scores((0.5, wrong), (0, 1))
    with pytest.raises(ValueError, match="clusters"):
        Scores((1.0,), ())
    one, two = (1.0,), (1.0, 0.0)
    for wrong_pairs in ((one, two, (0,)), (two, one, (0,)), (one, one, (0, 1))):
        with pytest.raises(ValueError, match="differ in length"):
            PairedItems(*wrong_pairs)


def test_of_nothing_everything_is_open() -> None:
    nothing, no_pairs = Scores((), ()), PairedItems((), (), ())
    assert (nothing.mean, no_pairs.mean) == (0.0, 0.0)
    assert stats.mean_interval(nothing) == stats.Interval(0.0, 0.0, 1.0, 0)
    assert stats.clopper_pearson(0, 0) == stats.Interval(0.0, 0.0, 1.0, 0)
    assert stats.paired_difference(no_pairs) == stats.Interval(0.0, -1.0, 1.0, 0)
    assert (stats.p_below(nothing, 0.5), stats.change_p(no_pairs)) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_deviation_is_numpy_s(values) -> None:
    assert stats.deviation(values) == pytest.approx(np.std(values), abs=1e-9)


def test_the_design_effect_is_kish_s_at_most_and_the_variances_ratio_between() -> None:
    """Two clusters of two and four alone: at most 12/8 items stand for one."""
    clusters = (0, 0, 1, 1, 2, 3, 4, 5)
    assert stats.design_effect((0.5,) * 8, clusters) == 12 / 8
    assert stats.design_effect((0.2, 0.4, 0.6), (1, 2, 3)) == 1.0
    assert stats.design_effect((1, 0, 1, 0, 1, 0, 1, 0), clusters) == 1.0  # pairs that cancel out
    values = (1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    ratio = stats.cluster_error(values, clusters) ** 2 / (np.var(values) / 8)
    assert stats.design_effect(values, clusters) == min(12 / 8, ratio)
    mild = (1.0, 0.8, 0.0, 0.6, 1.0, 0.0, 1.0, 0.0)
    ratio = stats.cluster_error(mild, clusters) ** 2 / (np.var(mild) / 8)
    assert 1 < ratio < 12 / 8
    assert stats.design_effect(mild, clusters) == pytest.approx(ratio)


def test_the_cluster_of_a_random_item_is_larger_than_the_mean_one() -> None:
    """One of four and two alone: four of six items are in one of 4."""
    assert stats.crowding((7, 7, 7, 7, 1, 2)) == (4 * 4 + 2 * 1) / 6
    assert stats.crowding((1, 2, 3)) == 1.0


def test_the_cluster_error_of_two_clusters_is_by_hand() -> None:
    """Sums are 1 above and 1 below their share: sqrt((1 + 1) * 2 / 1) / 4."""
    assert stats.cluster_error((1.0, 1.0, 0.0, 0.0), (0, 0, 1, 1)) == pytest.approx(0.5)
    assert stats.cluster_error((1.0, 0.0), (0, 0)) == math.inf


def test_two_sided_p_values_are_twice_the_bootstrap_s_tail() -> None:
    """A p below .05 where the interval ends below the goal, and never above 1."""
    scores = Scores(tuple(0.3 + 0.01 * (n % 40) for n in range(60)), tuple(range(60)))
    tail = resample(scores.values, scores.clusters, 0.0, 1.0).p_at_least(0.53)
    assert 0.001 < tail < 0.25
    assert stats.p_below(scores, 0.53) == 2 * tail
    before, after = (0.5,) * 30, tuple(0.5 + 0.01 * (n % 3 - 1) for n in range(30))
    pairs = PairedItems(before, after, tuple(range(30)))
    assert stats.change_p(pairs) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("right", "n", "goal"), [(6, 20, 0.5), (0, 3, 0.9), (17, 20, 0.99)])
def test_the_p_of_a_rate_below_the_goal_is_twice_the_binomial_s_tail(right, n, goal) -> None:
    scores = alone([1] * right + [0] * (n - right))
    wanted = 2 * sp.binomtest(right, n, goal, "less").pvalue
    assert stats.p_below(scores, goal) == pytest.approx(wanted)


def test_no_p_is_above_1() -> None:
    """Where the mean is just below the goal, either tail is more than a half."""
    assert stats.p_below(alone([1] * 9 + [0] * 11), 0.46) == 1.0
    graded = (0.5, 0.5, 0.6)
    assert stats.p_below(alone(graded), 0.54) == 1.0
    assert stats.p_below(alone(graded), 0.3) == 1.0
    assert stats.p_below(alone([1] * 9 + [0] * 11), 0.45) == 1.0
    pairs = PairedItems(graded, graded, (0, 1, 2))
    assert stats.change_p(pairs) == 1.0
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0]
    assert stats.benjamini_hochberg([1.0, 0.5]) == [1.0, 1.0]


def test_where_all_is_lost_the_bound_is_the_end() -> None:
    for n in (1, 2, 3, 10, 33, 100):
        assert stats.change_bounds(n, 0, n)[0] == -1.0
        assert stats.change_bounds(0, n, n)[1] == 1.0


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(0, 1, 60), (0, 3, 200), (1, 1, 50), (1, 4, 50), (1, 5, 300)]
)
def test_of_few_losses_one_resample_in_twenty_is_below_the_bound(lost, gained, n) -> None:
    random, draws = np.random.default_rng(2), 100_000
    worse, better, same = (
        random.standard_gamma(shape, draws) for shape in (lost + 1, gained, n - lost - gained)
    )
    changed = (better - worse) / (worse + better + same)
    noise = 4 * (0.05 * 0.95 / draws) ** 0.5
    below = np.mean(changed <= stats.change_bounds(lost, gained, n)[0])
    assert below == pytest.approx(0.05, abs=noise)


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(0, 10, 50), (1, 12, 50), (2, 3, 50), (2, 1, 3), (5, 5, 50)]
)
def test_in_no_corner_the_bound_is_tango_s(lost, gained, n) -> None:
    """Not in that of few losses either, where what was gained is surely more than nothing."""
    low, high = stats.change_bounds(lost, gained, n)
    assert low == stats._tango_low(gained, lost, n, stats.z_of(0.95))
    assert (low > 0) == (stats.mcnemar_midp(lost, gained) < 0.05)
    assert high > (gained - lost) / n


def test_of_one_item_the_p_is_that_of_two_exponential_weights() -> None:
    """The mean of a half and an unseen 1 is .98 or more if the unseen one weighs 24 times as much.

    The chance of that is 1/25; within 4 standard errors of 1,999 resamples, doubled.
    """
    noise = 8 * (0.04 * 0.96 / 1_999) ** 0.5
    assert stats.p_below(alone([0.5]), 0.98) == pytest.approx(2 / 25, abs=noise)


def test_a_few_equal_changes_are_as_likely_as_the_unseen_item_outweighs_them() -> None:
    """Five changes of a half: the unseen one of 1 weighs half of their weights: 1.5^-5, doubled."""
    low, high, chance = (0.25,) * 5, (0.75,) * 5, 1.5**-5
    noise = 8 * (chance * (1 - chance) / 1_999) ** 0.5
    for before, after in ((low, high), (high, low)):
        found = stats.change_p(PairedItems(before, after, tuple(range(5))))
        assert found == pytest.approx(2 * chance, abs=noise)


def test_a_change_that_any_flip_exceeds_is_less_than_sure_by_half_of_its_chance() -> None:
    """Eight lost together and six gained alone: sums from 2 to 14, and 2 in one of 64."""
    before = (1.0,) * 8 + (0.0,) * 6
    pairs = PairedItems(before, tuple(1 - one for one in before), (*[0] * 8, *range(1, 7)))
    assert stats.change_p(pairs) == 127 / 128


def test_one_gained_of_one_is_evenly_between_all_lost_and_all_gained() -> None:
    for confidence in (0.9, 0.95, 0.999):
        low, high = stats.change_bounds(0, 1, 1, confidence)
        assert low == pytest.approx(2 * (1 - confidence) - 1)
        assert high == 1.0


@pytest.mark.parametrize("change", [-0.7, -0.3, -0.02])
@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 2, 9), (1, 1, 5), (1, 4, 50), (1, 3, 4)])
def test_the_chance_of_few_losses_is_the_integral_over_those_that_stayed(
    lost, gained, n, change
) -> None:
    """Shares of a whole that are gamma variables are beta variables."""

    def beyond(stayed: float) -> float:
        return float(sp.beta.cdf((1 + change / (1 - stayed)) / 2, gained, lost + 1))

    stays = n - lost - gained
    wanted = beyond(0.0)
    if stays:
        share = sp.beta(stays, gained + lost + 1)
        wanted, _ = quad(lambda s: share.pdf(s) * beyond(s), 0, 1 + change)
    assert stats._few_lost_chance(gained, lost, n, change) == pytest.approx(wanted, rel=1e-6)


def test_where_all_was_lost_the_likeliest_rate_is_the_most_that_the_difference_leaves() -> None:
    """Next to -1, where the root is of nothing but rounding."""
    for step in range(200):
        delta = -1 + step * 1e-10 / 3
        assert stats.tango_lost(0, 1, 1, delta) == pytest.approx((1 - delta) / 2, abs=1e-7)
