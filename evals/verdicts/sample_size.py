"""Sample sizes: how many items would settle what is `inconclusive`. Pure.

Each function asks for the items with which the test in stats.py that judges the question would
decide it with probability `POWER`, if the rates stay as they were seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from evals.verdicts.stats import (
    CONFIDENCE,
    PairedItems,
    Scores,
    cluster_sums,
    crowding,
    design_effect,
    deviation,
    tango_lost,
    z_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

POWER = 0.8
"""Probability with which `items_to_…` items settle the question, if the rates stay as seen."""

MOST_ITEMS = 10_000_000
"""More items than this settle nothing in practice: the answer is then None."""

_SPARE = 1.05
"""More items than the approximation to the bootstrap says: without them, simulated power was down
to 0.72 where a few low scores decide or all scores are nearly alike."""


CHURN = 0.02
"""The share of answers that is lost, and the share gained, where nothing is known of them yet."""


def least_to_keep(max_drop: float, confidence: float = CONFIDENCE) -> int:
    """Return how many items it takes at least to find a guard kept: none of its answers changes."""
    same = PairedItems((1.0,), (1.0,), (0,))
    return items_to_show_kept(same, max_drop, confidence) or 1


def usual_to_keep(max_drop: float, confidence: float = CONFIDENCE, churn: float = CHURN) -> int:
    """Return how many items find a guard kept where `churn` of its answers go each way."""
    spread = math.sqrt(2 * churn)
    lost = tango_lost(churn, churn, 1.0, -max_drop)
    under = math.sqrt(max(0.0, 2 * lost - max_drop - max_drop * max_drop))
    width = z_of(confidence) * under + z_of(POWER) * spread
    return max(least_to_keep(max_drop, confidence), _items(width, max_drop) or MOST_ITEMS)


def least_to_reach(floor: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many items show a mean of at least `floor`, all of them right; None: no number."""
    if floor <= 0:
        return 1
    return items_to_show_rate(Scores((1.0,), (0,)), floor, confidence)


def least_to_miss(goal: float, family: int = 1) -> int | None:
    """Return how many items show a mean below `goal`, none of them right.

    Args:
        goal: what is missed.
        family: how many questions share the error (Holm).
    """
    return items_to_show_rate(Scores((0.0,), (0,)), goal, 1 - (1 - CONFIDENCE) / family)


def items_to_show_rate(scores: Scores, bound: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many items would put the whole interval on the mean's side of `bound`.

    None when the mean is (nearly) at the bound: then no number of items settles it.
    """
    rate, tail = scores.mean, (1 - confidence) / 2
    if scores.n == 0 or rate == bound:
        return None
    above = rate > bound
    if not scores.counted:
        values = scores.values if above else [-value for value in scores.values]
        reach = bound if above else 1 - bound
        return _resampled_items(values, scores.clusters, abs(rate - bound), reach, tail)
    if rate in (0, 1) and 0 < bound < 1:  # the exact bound is tail^(1/n) away from the other end
        return math.ceil(math.log(tail) / math.log(bound if above else 1 - bound))
    spread, under = math.sqrt(rate * (1 - rate)), math.sqrt(bound * (1 - bound))
    items = _items(z_of(1 - tail) * under + z_of(POWER) * spread, rate - bound)
    return items and _exact_items(items, abs(rate - bound))


def items_to_show_kept(
    pairs: PairedItems, max_drop: float, confidence: float = CONFIDENCE
) -> int | None:
    """Return how many items would put the difference's lower bound above -`max_drop`."""
    if pairs.n == 0 or pairs.mean <= -max_drop:
        return None
    room, tail = pairs.mean + max_drop, 1 - confidence
    if not pairs.counted:
        return _resampled_items(pairs.differences, pairs.clusters, room, 1 - max_drop, tail)
    spread = deviation(pairs.differences)
    if spread == 0:  # nothing changed: the exact bound is 1 - (1 - confidence)^(1/n)
        exact = math.ceil(math.log(tail) / math.log(1 - max_drop))
        # Tango's, z^2 / (n + z^2), is the wider one above a confidence of 96%.
        return max(exact, math.floor(z_of(confidence) ** 2 * (1 - max_drop) / max_drop) + 1)
    lost = tango_lost(pairs.gained / pairs.n, pairs.lost / pairs.n, 1.0, -max_drop)
    under = math.sqrt(max(0.0, 2 * lost - max_drop - max_drop * max_drop))
    return _items(z_of(confidence) * under + z_of(POWER) * spread, room)


def items_to_show_loss(pairs: PairedItems, confidence: float = CONFIDENCE) -> int | None:
    """Return how many items would make the loss significant; None when nothing was lost."""
    if pairs.mean >= 0:  # as that of no pairs is
        return None
    tail = (1 - confidence) / 2
    if not pairs.binary:
        losses = [-difference for difference in pairs.differences]
        return _resampled_items(losses, pairs.clusters, -pairs.mean, 1.0, tail)
    effect = design_effect(pairs.differences, pairs.clusters)
    under, spread = math.sqrt((pairs.lost + pairs.gained) / pairs.n), deviation(pairs.differences)
    return _items(z_of(1 - tail) * under + z_of(POWER) * spread, pairs.mean, effect)


def _items(width: float, distance: float, effect: float = 1.0) -> int | None:
    if abs(distance) * math.sqrt(MOST_ITEMS) <= width * math.sqrt(effect):
        return None
    return max(1, math.ceil(effect * (width / distance) ** 2))


def _exact_items(items: int, distance: float) -> int:
    """Return the items an exact test needs where a normal one needs `items` (as Fleiss does)."""
    return math.ceil(items / 4 * (1 + math.sqrt(1 + 2 / (items * distance))) ** 2)


def _resampled_items(
    values: Sequence[float], clusters: Sequence[int], room: float, reach: float, tail: float
) -> int | None:
    """Return how many items bring the bootstrap's bound nearer to the mean than `room`.

    Args:
        values: the scores seen, higher is better for what is to be shown.
        clusters: their clusters; more items are taken to come in clusters of the same sizes.
        room: from the mean to what is to be shown.
        reach: from there to the worst score.
        tail: of the bound, on one side.
    """
    if reach <= 0:  # there is no worse score than what is to be refuted
        return 1
    n, most = len(values), crowding(clusters)
    sums = cluster_sums(values, clusters)
    if len(sums) < 2:  # noqa: PLR2004 - one cluster has no spread
        return None
    variance = math.fsum(total**2 for total in sums) / n
    # An unlucky sample has more of the worst items, so its mean is lower and its spread larger.
    lean = math.fsum(total**3 for total in sums) / n / variance if variance else 0.0

    def settles(items: int) -> bool:
        unlucky = z_of(POWER) * math.sqrt(variance / items)
        seen, spread = room - unlucky, max(variance / 4, variance - lean * unlucky)
        return seen > 0 and _unseen_tail(items, seen, spread, reach, most) <= tail

    few, enough = 0, 1
    while not settles(enough):
        few, enough = enough, enough * 2
        if few > MOST_ITEMS:
            return None
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if settles(middle) else (middle, enough)
    return math.ceil(enough * _SPARE)


def _unseen_tail(items: int, seen: float, variance: float, reach: float, most: float) -> float:
    """Return the chance that the bootstrap of `items` gives a mean as bad as what is to be refuted.

    By exponential weights, the items seen are `seen` better than that on average: nearly a normal
    sum. Against it stands one unseen cluster of `most` items, each worse by `reach`: exponential.
    """
    from scipy.special import log_ndtr, ndtr

    wide = math.sqrt(items * (variance + most * seen * seen))
    x, k = items * seen / wide, most * reach / wide
    return float(ndtr(-x)) + math.exp(0.5 / k**2 - x / k + float(log_ndtr(x - 1 / k)))
