"""The items that are advised settle the question in four of five evals: power by enumeration."""

from __future__ import annotations

import bisect
import math

import numpy as np
import pytest
from scipy import stats as sp
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from evals.verdicts import sample_size, stats
from evals.verdicts.sample_size import items_to_show_kept, items_to_show_loss, items_to_show_rate
from evals.verdicts.stats import PairedItems, Scores


def rate(right: int, n: int) -> Scores:
    return Scores((1.0,) * right + (0.0,) * (n - right), tuple(range(n)))


def changed(lost: int, gained: int, n: int, size: int = 1) -> PairedItems:
    """N pairs in clusters of `size`, whose members answer alike where it divides the counts."""
    stay = (1.0,) * (n - lost - gained)
    before = (1.0,) * lost + (0.0,) * gained + stay
    after = (0.0,) * lost + (1.0,) * gained + stay
    return PairedItems(before, after, tuple(i // size for i in range(n)))


def sure(count: int | None) -> int:
    assert count is not None
    return count


@pytest.mark.parametrize(
    ("right", "n", "bound"), [(60, 100, 0.5), (40, 100, 0.5), (90, 100, 0.8), (70, 100, 0.8)]
)
def test_a_rate_is_shown_by_the_exact_interval_in_four_of_five_evals(right, n, bound) -> None:
    def power(items: int) -> float:
        tail = 0.025
        low = sp.beta.ppf(tail, range(1, items + 1), range(items, 0, -1))  # of 1 right and more
        shown = (
            [k for k in range(1, items + 1) if low[k - 1] > bound]
            if right / n > bound  # by symmetry the upper bound of k is 1 less the lower of n - k
            else [k for k in range(items) if 1 - low[items - k - 1] < bound]
        )
        return float(sp.binom.pmf(shown, items, right / n).sum())

    needed = sure(items_to_show_rate(rate(right, n), bound))
    assert power(needed) == pytest.approx(0.8, abs=0.01)
    stricter = sure(items_to_show_rate(rate(right, n), bound, 0.99))
    assert stricter > 1.3 * needed


@pytest.mark.parametrize(("lost", "gained", "n"), [(20, 10, 300), (12, 4, 100)])
def test_a_loss_is_significant_in_four_of_five_evals(lost, gained, n) -> None:
    needed = sure(items_to_show_loss(changed(lost, gained, n)))
    share = lost / (lost + gained)
    power = 0.0
    for total in range(1, needed):
        chance = sp.binom.pmf(total, needed, (lost + gained) / n)
        if chance > 1e-7:
            k = np.arange(total // 2 + 1, total + 1)
            midp = 2 * sp.binom.sf(k, total, 0.5) + sp.binom.pmf(k, total, 0.5)
            shown = k[midp <= 0.05]
            power += chance * sp.binom.pmf(shown, total, share).sum()
    assert power == pytest.approx(0.8, abs=0.012)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "max_drop"), [(3, 3, 150, 0.05), (4, 1, 150, 0.06)]
)
def test_a_guard_is_kept_in_four_of_five_evals(lost, gained, n, max_drop) -> None:
    """Within .025: the exact bound in the corners of few losses is no normal one."""
    needed = sure(items_to_show_kept(changed(lost, gained, n), max_drop))
    loss, gain = lost / n, gained / n
    power = 0.0
    for down in range(int(sp.binom.ppf(1 - 1e-6, needed, loss)) + 1):
        rest = needed - down
        most = int(sp.binom.ppf(1 - 1e-6, rest, gain / (1 - loss)))
        kept = [
            up for up in range(most + 1) if stats.change_bounds(down, up, needed)[0] > -max_drop
        ]
        power += (
            sp.binom.pmf(down, needed, loss) * sp.binom.pmf(kept, rest, gain / (1 - loss)).sum()
        )
    assert power == pytest.approx(0.81, abs=0.016)


def test_what_is_beyond_or_at_the_bound_is_never_shown() -> None:
    assert items_to_show_rate(rate(50, 100), 0.5) is None
    assert items_to_show_rate(rate(0, 0), 0.5) is None
    assert items_to_show_rate(rate(5_001, 10_000), 0.5) is None  # 200 million would
    for at_the_bound in (0.0, 0.5, 1.0):
        assert items_to_show_rate(Scores((at_the_bound,) * 4, (0, 0, 1, 1)), at_the_bound) is None
    assert items_to_show_kept(changed(5, 0, 100), 0.05) is None
    assert items_to_show_kept(changed(0, 0, 100), 0.0) is None
    assert items_to_show_kept(changed(100, 0, 100, size=2), 1.0) is None
    assert items_to_show_kept(changed(0, 0, 0), 0.05) is None
    assert items_to_show_loss(changed(3, 3, 100)) is None
    assert items_to_show_loss(changed(0, 0, 0)) is None
    # All right: 0.9 is below the exact bound where 0.9^n is 2.5%. None right: 0.1 likewise.
    assert items_to_show_rate(rate(5, 5), 0.9) == math.ceil(math.log(0.025) / math.log(0.9))
    assert items_to_show_rate(rate(0, 5), 0.1) == math.ceil(math.log(0.025) / math.log(0.9))
    assert items_to_show_kept(changed(0, 0, 9), 0.1) == math.ceil(math.log(0.05) / math.log(0.9))


def test_items_that_answer_alike_count_once() -> None:
    """Five that are always lost or kept together: five times as many items are needed."""
    alone = sure(items_to_show_loss(changed(20, 10, 300)))
    assert items_to_show_loss(changed(100, 50, 1500, size=5)) == pytest.approx(5 * alone, rel=0.02)
    values, five = [1.0] * 80 + [0.0] * 20, [i // 5 for i in range(100)]
    once = sure(sample_size._resampled_items(values, range(100), 0.05, 0.75, 0.025))
    together = sure(sample_size._resampled_items(values, five, 0.05, 0.75, 0.025))
    assert together == pytest.approx(5 * once, rel=0.01)


def test_the_bootstrap_asks_for_what_the_exact_test_asks_for_where_both_apply() -> None:
    values = [1.0] * 80 + [0.0] * 20
    exact = sure(items_to_show_rate(rate(80, 100), 0.75))
    found = sure(sample_size._resampled_items(values, range(100), 0.05, 0.75, 0.025))
    assert found == pytest.approx(exact, rel=0.02)
    assert sample_size._resampled_items(values, range(100), 0.05, 0.0, 0.025) == 1
    assert sample_size._resampled_items(values, [0] * 100, 0.05, 0.75, 0.025) is None
    assert sample_size._resampled_items(values, range(100), 1e-5, 0.75, 0.025) is None


def graded(right: int, n: int) -> Scores:
    """Scores that are nearly those of `rate`, and of which no count says it all."""
    values = rate(right, n).values
    return Scores((abs(values[0] - 0.001), *values[1:]), tuple(range(n)))


def test_scores_that_are_nearly_0_or_1_need_nearly_as_many_items() -> None:
    """From the mean to the bound, and from there to the worst score: on either side of it."""
    exact = sure(items_to_show_rate(rate(80, 100), 0.75))
    above, below = graded(80, 100), graded(20, 100)
    mirrored = Scores(tuple(1 - value for value in above.values), above.clusters)
    for scores, bound in ((above, 0.75), (below, 0.25), (mirrored, 0.25)):
        assert items_to_show_rate(scores, bound) == pytest.approx(exact, rel=0.03)
    assert items_to_show_rate(mirrored, 0.25) == items_to_show_rate(above, 0.75)
    # The worst is 0, .75 below the bound.
    found = sample_size._resampled_items(above.values, range(100), above.mean - 0.75, 0.75, 0.025)
    assert items_to_show_rate(above, 0.75) == found


def test_graded_changes_are_judged_by_what_a_new_item_might_lose() -> None:
    """A change is -1 at worst: .8 below a drop of .2, 1 below none. A few lose much."""
    before, after = (0.9,) * 100, tuple(0.9 - 0.5 * (n % 50 / 50) ** 8 for n in range(100))
    pairs = PairedItems(before, after, tuple(range(100)))
    lost = [first - then for first, then in zip(before, after, strict=True)]
    mean = math.fsum(lost) / 100
    kept = sample_size._resampled_items([-one for one in lost], range(100), 0.2 - mean, 0.8, 0.05)
    assert kept is not None
    assert items_to_show_kept(pairs, 0.2) == kept
    shown = sample_size._resampled_items(lost, range(100), mean, 1.0, 0.025)
    assert shown is not None
    assert items_to_show_loss(pairs) == shown


@pytest.mark.parametrize(
    ("lost", "gained", "n", "max_drop"), [(4, 1, 150, 0.06), (3, 3, 150, 0.05), (1, 0, 150, 0.02)]
)
def test_the_spread_at_the_drop_is_that_of_the_likeliest_rates(lost, gained, n, max_drop) -> None:
    def unlikely(loss: float) -> float:
        rates = (loss - max_drop, loss, 1 - 2 * loss + max_drop)
        seen = (gained, lost, n - lost - gained)
        return -sum(k * math.log(max(rate, 1e-300)) for k, rate in zip(seen, rates, strict=True))

    bounds = (max_drop, (1 + max_drop) / 2)
    loss = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    under = math.sqrt(2 * loss - max_drop - max_drop**2)
    mean, changes = (gained - lost) / n, (gained + lost) / n
    width = sp.norm.ppf(0.95) * under + sp.norm.ppf(0.8) * math.sqrt(changes - mean**2)
    wanted = math.ceil((width / (mean + max_drop)) ** 2)
    assert items_to_show_kept(changed(lost, gained, n), max_drop) == wanted


def test_a_bound_at_either_end_is_shown_by_an_item_or_two() -> None:
    """One right answer rules out that none ever is, one wrong answer that all are."""
    for right, bound in ((5, 0.0), (0, 1.0)):
        assert 1 <= sure(items_to_show_rate(rate(right, 5), bound)) <= 2
    assert items_to_show_rate(rate(0, 5), 0.0) is None
    assert items_to_show_rate(rate(5, 5), 1.0) is None


def test_that_not_all_is_lost_is_shown_by_the_spread_alone() -> None:
    """Of losing all there is no spread; two of three have sqrt(2/9), 1/3 away: 2 x .84^2."""
    assert items_to_show_kept(changed(2, 0, 3), 1.0) == math.ceil(2 * sp.norm.ppf(0.8) ** 2)


def test_a_gain_is_no_loss_and_one_loss_of_one_is() -> None:
    assert items_to_show_loss(changed(1, 5, 100)) is None
    # All are lost, without any spread: (1.96 / 1)^2.
    assert items_to_show_loss(changed(1, 0, 1)) == 4


def test_more_than_ten_million_items_settle_nothing() -> None:
    """(1.96 + .84)^2 times what changed by what was lost, squared: 9.88 and 10.1 M, 5 x 9.88 M."""

    def items(lost: int, gained: int) -> float:
        return 2.80159**2 * 6000 * (lost + gained) / (lost - gained) ** 2

    assert items_to_show_loss(changed(2625, 2620, 6000)) == pytest.approx(items(2625, 2620), 1e-4)
    assert 10_000_000 < items(2685, 2680) < 10_200_000
    assert items_to_show_loss(changed(2685, 2680, 6000)) is None
    assert items_to_show_loss(changed(2625, 2620, 6000, size=5)) is None


@pytest.mark.parametrize(
    ("values", "size", "room", "reach", "tail"),
    [
        ([1.0] * 80 + [0.0] * 20, 1, 0.2, 0.6, 0.025),
        ([1.0] * 60 + [0.0] * 40, 5, 0.3, 0.3, 0.025),
        ([0.9, 0.7, 0.4, 0.95] * 5, 1, 0.1, 0.6, 0.05),
        ([0.2, 0.1, 0.6], 1, 0.2, 0.1, 0.025),
        ([0.0, 0.0, 1.0, 1.0], 2, 0.9, 0.2, 0.05),
    ],
)
def test_the_fewest_items_that_settle_it_are_found_and_a_twentieth_more(
    values, size, room, reach, tail
) -> None:
    clusters = [n // size for n in range(len(values))]
    sums = np.bincount(clusters, np.array(values) - np.mean(values))
    variance = (sums**2).sum() / len(values)
    lean = (sums**3).sum() / len(values) / variance

    def settles(items: int) -> bool:
        unlucky = sp.norm.ppf(0.8) * math.sqrt(variance / items)
        seen, spread = room - unlucky, max(variance / 4, variance - lean * unlucky)
        wide = math.sqrt(items * (spread + size * seen * seen))
        x, k = items * seen / wide, size * reach / wide
        beyond, _ = quad(lambda t: sp.norm.pdf(t - x) * math.exp(-t / k), 0, math.inf)
        return seen > 0 and sp.norm.cdf(-x) + beyond <= tail

    fewest = 1 + bisect.bisect_left(range(1, 10_000), True, key=settles)
    found = sample_size._resampled_items(values, clusters, room, reach, tail)
    assert found == math.ceil(1.05 * fewest)


@pytest.mark.parametrize(
    ("items", "seen", "variance", "reach", "most"),
    [(50, 0.1, 0.2, 0.9, 1.0), (200, 0.03, 0.1, 0.5, 2.5)],
)
def test_the_unseen_cluster_against_a_normal_sum_is_the_integral(
    items, seen, variance, reach, most
) -> None:
    wide = math.sqrt(items * (variance + most * seen * seen))
    x, k = items * seen / wide, most * reach / wide
    beyond, _ = quad(lambda t: sp.norm.pdf(t - x) * math.exp(-t / k), 0, math.inf)
    found = sample_size._unseen_tail(items, seen, variance, reach, most)
    assert found == pytest.approx(sp.norm.cdf(-x) + beyond)
