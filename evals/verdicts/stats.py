"""The statistics of evals: pure functions over scores between 0 and 1, higher is better.

Items of one duplicate cluster answer alike, so they are not independent. Where items share a
cluster, whole clusters are resampled (bootstrap.py) or flipped. Scores of 0 and 1 without shared
clusters are judged by the textbook formulas named below, each made wider in the corner where its
error is above nominal. What each of them holds was measured: docs/internals/statistics.md.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from evals.verdicts.bootstrap import resample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONFIDENCE = 0.95
"""Of every interval that is shown or judged by."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its bounds, over `n` items."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Scores:
    """One score an item, with the duplicate cluster of each item."""

    values: tuple[float, ...]
    clusters: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse scores that the statistics don't hold for."""
        if len(self.values) != len(self.clusters):
            message = f"{len(self.values)} scores but {len(self.clusters)} clusters"
            raise ValueError(message)
        if not all(0 <= value <= 1 for value in self.values):
            message = "a score is not between 0 and 1"
            raise ValueError(message)

    @property
    def n(self) -> int:
        """Return the number of items."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Return the mean score (0 without items)."""
        return math.fsum(self.values) / self.n if self.values else 0.0

    @property
    def successes(self) -> int:
        """Return how many scores are 1."""
        return sum(value == 1 for value in self.values)

    @property
    def counted(self) -> bool:
        """Return whether a count says it all: every score is 0 or 1, no cluster is shared."""
        return not shared(self.clusters) and all(value in (0, 1) for value in self.values)


# ------------------------------------------------------------------------------- one sample


def clopper_pearson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact interval of a rate: each bound errs in at most half of 1 - confidence."""
    from scipy.special import betaincinv

    if n <= 0:
        return Interval(0.0, 0.0, 1.0, 0)
    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(successes / n, low, high, n)


def mean_interval(scores: Scores, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean score with its two-sided interval.

    Scores of 0 and 1 without shared clusters: Clopper and Pearson's. Others: the bootstrap over
    clusters, which is the same where both apply.
    """
    if scores.counted:
        return clopper_pearson(scores.successes, scores.n, confidence)
    mean = scores.mean
    tail = (1 - confidence) / 2
    resampled = resample(scores.values, scores.clusters, 0.0, 1.0, tail)
    low, high = min(mean, resampled.low(tail)), max(mean, resampled.high(tail))
    return Interval(mean, low, high, scores.n)


def p_below(scores: Scores, goal: float) -> float:
    """Return the two-sided p-value of "the mean equals `goal`", 1 if the mean is not below it.

    It matches `mean_interval`: p < 1 - confidence exactly when the upper bound is below the goal.
    """
    if scores.mean >= goal:
        return 1.0
    if not scores.counted:
        return min(1.0, 2 * resample(scores.values, scores.clusters, 0.0, 1.0).p_at_least(goal))
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(scores.successes, scores.n, goal)))  # of no items 1 too


def cluster_error(values: Sequence[float], clusters: Sequence[int]) -> float:
    """Return the cluster-robust standard error of the mean (CR1: small-sample factor G/(G-1))."""
    sums = cluster_sums(values, clusters)
    if len(sums) < 2:  # noqa: PLR2004 - one group has no spread
        return math.inf
    spread = math.fsum(total * total for total in sums)
    return math.sqrt(spread * len(sums) / (len(sums) - 1)) / len(values)


def cluster_sums(values: Sequence[float], clusters: Sequence[int]) -> list[float]:
    """Return by how much each cluster's sum is above what its items would sum to on average."""
    mean = math.fsum(values) / len(values)
    sums = dict.fromkeys(clusters, 0.0)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    return list(sums.values())


# ------------------------------------------------------------------------------------ pairs


@dataclass(frozen=True, slots=True)
class PairedItems:
    """Scores of the same items before and after, with the items' duplicate clusters."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    clusters: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what is not pairs."""
        if not len(self.before) == len(self.after) == len(self.clusters):
            message = "before, after and clusters differ in length"
            raise ValueError(message)

    @property
    def n(self) -> int:
        """Return the number of items."""
        return len(self.before)

    @property
    def differences(self) -> tuple[float, ...]:
        """Return after - before, item by item."""
        return tuple(a - b for b, a in zip(self.before, self.after, strict=True))

    @property
    def binary(self) -> bool:
        """Return whether every score is 0 or 1."""
        return all(value in (0, 1) for value in (*self.before, *self.after))

    @property
    def counted(self) -> bool:
        """Return whether counts say it all: every score is 0 or 1, no cluster is shared."""
        return not shared(self.clusters) and self.binary

    @property
    def lost(self) -> int:
        """Return how many items scored less than before (1 → 0)."""
        return sum(difference < 0 for difference in self.differences)

    @property
    def gained(self) -> int:
        """Return how many items scored more than before (0 → 1)."""
        return sum(difference > 0 for difference in self.differences)

    @property
    def mean(self) -> float:
        """Return the mean difference (0 without items)."""
        return math.fsum(self.differences) / self.n if self.n else 0.0


def mcnemar_midp(lost: int, gained: int) -> float:
    """Return the two-sided mid-p value of McNemar's exact test on the discordant pairs."""
    total, fewer = lost + gained, min(lost, gained)
    if lost == gained:
        return 1.0
    from scipy.special import bdtr

    tail, up_to = (
        float(bdtr(fewer - 1, total, 0.5)) if fewer else 0.0,
        float(bdtr(fewer, total, 0.5)),
    )
    return tail + up_to  # 2 * (P(X < fewer) + P(X = fewer) / 2)


def change_p(pairs: PairedItems) -> float:
    """Return the two-sided p-value of "nothing changed".

    Scores of 0 and 1: the sign-flip test over clusters with mid-p, exact; it is mid-p McNemar
    when no cluster is shared. Others: that of the bootstrap that bounds `paired_difference`.
    """
    if pairs.binary:
        return _sign_flip_midp(pairs)
    resampled = resample(pairs.differences, pairs.clusters, -1.0, 1.0)
    return min(1.0, 2 * min(resampled.p_at_most(0.0), resampled.p_at_least(0.0)))


def paired_difference(pairs: PairedItems, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean difference, each bound one-sided at `confidence`.

    Scores of 0 and 1 without shared clusters: `change_bounds`. Others: the bootstrap over clusters
    of pairs.
    """
    if pairs.n == 0:
        return Interval(0.0, -1.0, 1.0, 0)
    mean = pairs.mean
    if pairs.counted:
        low, high = change_bounds(pairs.lost, pairs.gained, pairs.n, confidence)
    else:
        tail = 1 - confidence
        resampled = resample(pairs.differences, pairs.clusters, -1.0, 1.0, tail)
        low, high = resampled.low(tail), resampled.high(tail)
    return Interval(mean, min(mean, low), max(mean, high), pairs.n)


def change_bounds(
    lost: int, gained: int, n: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the bounds of (gained - lost) / n, each one-sided at `confidence`.

    Tango's score interval, which stays honest when few or no answers changed (a Wald interval over
    10 unchanged items has no width), and the exact bound in the corners where Tango's error would
    reach 6%: all changes go one way, or at most one goes the other.
    """
    low = _lowest_change(gained, lost, n, confidence)
    return low, -_lowest_change(lost, gained, n, confidence)


# -------------------------------------------------------------------------- many questions


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given (family-wise error)."""
    adjusted, running = list(p_values), 0.0
    for rank, index in enumerate(_ascending(p_values)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return Benjamini and Hochberg's adjusted p-values, in the order given (false discoveries)."""
    adjusted, running = list(p_values), 1.0
    for rank, index in reversed(list(enumerate(_ascending(p_values), start=1))):
        running = min(running, p_values[index] * len(p_values) / rank)
        adjusted[index] = running
    return adjusted


# ------------------------------------------------------------------------------- arithmetic


def z_of(probability: float) -> float:
    """Return the standard normal deviate below which `probability` lies."""
    return NormalDist().inv_cdf(probability)


def _ascending(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=values.__getitem__)


def shared(clusters: Sequence[int]) -> bool:
    """Return whether any two items are of one cluster."""
    return len(set(clusters)) < len(clusters)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of values, each as likely as any other."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def crowding(clusters: Sequence[int]) -> float:
    """Return the size of the cluster of an item drawn at random: 1 without shared ones (Kish)."""
    sizes = Counter(clusters).values()
    return sum(size * size for size in sizes) / sum(sizes)


def design_effect(values: Sequence[float], clusters: Sequence[int]) -> float:
    """Return how many items are worth one independent item: `crowding` where they answer alike."""
    most = crowding(clusters)
    variance = deviation(values) ** 2 / len(values)
    if variance == 0:
        return most
    return min(most, max(1.0, cluster_error(values, clusters) ** 2 / variance))


def _sign_flip_midp(pairs: PairedItems) -> float:
    sums: Counter[int] = Counter()
    for difference, cluster in zip(pairs.differences, pairs.clusters, strict=True):
        sums[cluster] += round(difference)
    steps = [abs(total) for total in sums.values() if total]
    if all(step == 1 for step in steps):
        lost = sum(total < 0 for total in sums.values())
        return mcnemar_midp(lost, len(steps) - lost)
    import numpy as np

    seen, reach = abs(sum(sums.values())), sum(steps)
    if seen == 0:
        return 1.0
    chances = np.zeros(2 * reach + 1)  # chances[reach + s]: probability of the sum s
    chances[reach] = 1.0
    for step in steps:
        chances = (np.roll(chances, step) + np.roll(chances, -step)) / 2
    beyond = float(chances[reach + seen + 1 :].sum())
    return min(1.0, 2 * beyond + float(chances[reach + seen]))


def _lowest_change(gained: int, lost: int, n: int, confidence: float) -> float:
    """Return the one-sided lower bound of the rate of 0 → 1 less the rate of 1 → 0."""
    low, tail = _tango_low(gained, lost, n, z_of(confidence)), 1 - confidence
    if lost >= n:
        return low
    if gained == 0:
        from scipy.special import betaincinv

        return min(low, -float(betaincinv(lost + 1, n - lost, confidence)))
    if lost > 1 or _few_lost_chance(gained, lost, n, 0.0) <= tail:
        return low
    return min(
        low,
        falling_root(lambda x: tail - _few_lost_chance(gained, lost, n, x), -1.0, 0.0),
    )


def _few_lost_chance(gained: int, lost: int, n: int, change: float) -> float:
    """Return the chance that the change is at most `change`, itself at most 0; `lost` is 0 or 1.

    The bound of bootstrap.py in closed form. Its weights of what was lost (and is unseen),
    gained and neither are gamma variables; the chance that the first outweighs the others follows
    from their moment-generating functions. With nothing gained it is Clopper and Pearson's.
    """
    none_lost: float = (1 + change) ** (n - lost) / 2.0**gained
    if not lost:
        return none_lost
    return none_lost * (1 + gained * (1 - change) / 2 - (n - gained - 1) * change)


def tango_lost(gained: float, lost: float, n: float, delta: float) -> float:
    """Return the likeliest rate of 1 → 0 if the true difference were `delta` (Tango 1998)."""
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    return (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)


def _tango_low(gained: int, lost: int, n: int, z: float) -> float:
    """Return the smallest difference whose score test at `z` the counts do not refuse."""

    def excess(delta: float) -> float:
        rate = tango_lost(gained, lost, n, delta)
        variance = n * (2 * rate + delta * (1 - delta))
        return gained - lost - n * delta - z * math.sqrt(max(0.0, variance))

    return falling_root(excess, -1.0, (gained - lost) / n)


def falling_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where `function`, positive below and not above, crosses zero (by halving)."""
    for _ in range(60):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return low
