"""The statistics of evals: pure functions over scores between 0 and 1, higher is better.

Items of one duplicate cluster answer alike, so they are not independent. Wherever clusters are
given, the arithmetic counts an effective number of items instead (Kish's design effect), or flips
whole clusters. Without shared clusters everything reduces to the textbook formula it is named by.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

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
    def binary(self) -> bool:
        """Return whether every score is 0 or 1."""
        return all(value in (0, 1) for value in self.values)


# ------------------------------------------------------------------------------- one sample


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a rate; counts may be effective, hence fractions."""
    if n <= 0:
        return Interval(0.0, 0.0, 1.0, 0)
    z = z_of(1 - (1 - confidence) / 2)
    rate, scale = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= n else min(1.0, centre + half)
    return Interval(rate, low, high, round(n))


def clopper_pearson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact (conservative) interval of a rate."""
    from scipy.special import betaincinv

    if n <= 0:
        return Interval(0.0, 0.0, 1.0, 0)
    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(successes / n, low, high, n)


def mean_interval(scores: Scores, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean score with its two-sided interval.

    Scores of 0 and 1: Wilson over the effective number of items. Others: Student's t with a
    cluster-robust standard error and (clusters - 1) degrees of freedom.
    """
    if scores.n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    if scores.binary:
        n = effective_n(scores)
        bounds = wilson(scores.mean * n, n, confidence)
        return Interval(scores.mean, bounds.low, bounds.high, scores.n)
    half = _half_width(scores.values, scores.clusters, 1 - (1 - confidence) / 2)
    mean = scores.mean
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), scores.n)


def p_below(scores: Scores, goal: float) -> float:
    """Return the two-sided p-value of "the mean equals `goal`", 1 if the mean is not below it.

    It matches `mean_interval`: p < 1 - confidence exactly when the upper bound is below the goal.
    """
    mean = scores.mean
    if scores.n == 0 or mean >= goal:
        return 1.0
    if scores.binary:
        error = math.sqrt(goal * (1 - goal) / effective_n(scores))
        return 1.0 if error == 0 else 2 * NormalDist().cdf((mean - goal) / error)
    from scipy.special import stdtr

    freedom, error = _freedom(scores.clusters), _floored_error(scores.values, scores.clusters)
    return 2 * float(stdtr(freedom, (mean - goal) / error)) if freedom else 1.0


def cluster_error(values: Sequence[float], clusters: Sequence[int]) -> float:
    """Return the cluster-robust standard error of the mean (CR1: small-sample factor G/(G-1))."""
    n, groups = len(values), set(clusters)
    if len(groups) < 2:  # noqa: PLR2004 - one group has no spread
        return math.inf
    mean = math.fsum(values) / n
    sums = dict.fromkeys(groups, 0.0)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    spread = math.fsum(total * total for total in sums.values())
    return math.sqrt(spread * len(groups) / (len(groups) - 1)) / n


def effective_n(scores: Scores) -> float:
    """Return how many independent items the (binary) scores are worth: at most n.

    n divided by the design effect (cluster-robust variance over binomial variance), which is at
    least 1 and at most what it is when all items of a cluster are one and the same. With no spread
    at all, as when every answer is right, that most cautious value is taken.
    """
    return scores.n / design_effect(scores.values, scores.clusters)


# ------------------------------------------------------------------------------------ pairs


@dataclass(frozen=True, slots=True)
class Paired:
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


def change_p(pairs: Paired) -> float:
    """Return the two-sided p-value of "nothing changed".

    Scores of 0 and 1: the sign-flip test over clusters with mid-p, exact; it is mid-p McNemar
    when no cluster is shared. Others: Student's t with a cluster-robust standard error.
    """
    if pairs.binary:
        return _sign_flip_midp(pairs)
    freedom = _freedom(pairs.clusters)
    error = cluster_error(pairs.differences, pairs.clusters)
    if not freedom or error == 0:
        return 1.0
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(pairs.mean) / error))


def paired_difference(pairs: Paired, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean difference, each bound one-sided at `confidence`.

    Scores of 0 and 1: Tango's score interval, which stays honest when few or no answers changed
    (a Wald interval over 10 unchanged items has no width), and the exact Clopper-Pearson bound
    where all changes go one way, the corner where Tango's error would reach 6%. Others:
    cluster-robust t.
    """
    if pairs.n == 0:
        return Interval(0.0, -1.0, 1.0, 0)
    mean = pairs.mean
    if pairs.binary:
        shrink = design_effect(pairs.differences, pairs.clusters)
        lost, gained, n = pairs.lost / shrink, pairs.gained / shrink, pairs.n / shrink
        z = z_of(confidence)
        low, high = _lowest_change(gained, lost, n, z), -_lowest_change(lost, gained, n, z)
    else:
        half = _half_width(pairs.differences, pairs.clusters, confidence)
        low, high = max(-1.0, mean - half), min(1.0, mean + half)
    return Interval(mean, low, high, pairs.n)


# -------------------------------------------------------------------------- many questions


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given (family-wise error)."""
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(_ascending(p_values)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return Benjamini and Hochberg's adjusted p-values, in the order given (false discoveries)."""
    adjusted, running = [1.0] * len(p_values), 1.0
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


def _freedom(clusters: Sequence[int]) -> int:
    return max(0, len(set(clusters)) - 1)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of values, each as likely as any other."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def design_effect(values: Sequence[float], clusters: Sequence[int]) -> float:
    """Return how many items are worth one independent item: 1 without shared clusters (Kish)."""
    sizes = Counter(clusters).values()
    most = sum(size * size for size in sizes) / sum(sizes)
    variance = deviation(values) ** 2 / len(values)
    if variance == 0 or most == 1:
        return most
    return min(most, max(1.0, cluster_error(values, clusters) ** 2 / variance))


def _floored_error(values: Sequence[float], clusters: Sequence[int]) -> float:
    """Return the robust error, at least what n items without any spread still leave open."""
    z, n = z_of(CONFIDENCE), len(values)
    return max(cluster_error(values, clusters), z / (n + z * z))


def _half_width(values: Sequence[float], clusters: Sequence[int], probability: float) -> float:
    freedom = _freedom(clusters)
    if not freedom:
        return 1.0
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability)) * _floored_error(values, clusters)


def _sign_flip_midp(pairs: Paired) -> float:
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


def _lowest_change(gained: float, lost: float, n: float, z: float) -> float:
    """Return the one-sided lower bound of the rate of 0 → 1 less the rate of 1 → 0."""
    low = _tango_low(gained, lost, n, z)
    if gained > 0 or lost >= n:
        return low
    from scipy.special import betaincinv

    return min(low, -float(betaincinv(lost + 1, n - lost, NormalDist().cdf(z))))


def tango_lost(gained: float, lost: float, n: float, delta: float) -> float:
    """Return the likeliest rate of 1 → 0 if the true difference were `delta` (Tango 1998)."""
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    return (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)


def _tango_low(gained: float, lost: float, n: float, z: float) -> float:
    """Return the smallest difference whose score test at `z` the counts do not refuse."""

    def excess(delta: float) -> float:
        rate = tango_lost(gained, lost, n, delta)
        variance = n * (2 * rate + delta * (1 - delta))
        return gained - lost - n * delta - z * math.sqrt(max(0.0, variance))

    return _falling_root(excess, -1.0, (gained - lost) / n)


def _falling_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where `function`, positive below and not above, crosses zero (by halving)."""
    for _ in range(60):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return low
