"""The items that are advised settle the question in four of five evals: power by enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sp
from scipy.integrate import quad

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
    assert items_to_show_kept(changed(5, 0, 100), 0.05) is None
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
