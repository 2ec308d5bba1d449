"""How many items would settle what is `inconclusive`: the advice beside a verdict. Pure.

Each function asks for the items with which the test in `evals.stats` that judges the question would
decide it with probability `POWER`, if the rates stay as they were seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from evals.stats import (
    CONFIDENCE,
    cluster_error,
    design_effect,
    deviation,
    effective_n,
    tango_lost,
    z_of,
)

if TYPE_CHECKING:
    from evals.stats import Paired, Scores

POWER = 0.8
"""Probability with which `items_to_…` items settle the question, if the rates stay as seen."""

MOST_ITEMS = 10_000_000
"""More items than this settle nothing in practice: the answer is then None."""


def items_to_show_rate(scores: Scores, bound: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many items would put the whole interval on the mean's side of `bound`.

    None when the mean is (nearly) at the bound: then no number of items settles it.
    """
    rate, effect = scores.mean, scores.n / effective_n(scores) if scores.binary else 1.0
    spread = math.sqrt(rate * (1 - rate)) if scores.binary else _deviation(scores)
    under = math.sqrt(bound * (1 - bound)) if scores.binary else spread
    z = z_of(1 - (1 - confidence) / 2)
    items = _items(effect, z * under + z_of(POWER) * spread, rate - bound)
    return items if scores.binary else _floored_items(items, z, rate - bound)


def items_to_show_kept(
    pairs: Paired, max_drop: float, confidence: float = CONFIDENCE
) -> int | None:
    """Return how many items would put the difference's lower bound above -`max_drop`."""
    if pairs.n == 0 or pairs.mean <= -max_drop:
        return None
    z, spread = z_of(confidence), deviation(pairs.differences)
    if not pairs.binary:
        room = pairs.mean + max_drop
        return _floored_items(_items(1.0, (z + z_of(POWER)) * spread, room), z, room)
    effect = design_effect(pairs.differences, pairs.clusters)
    if spread == 0:  # nothing changed: the exact bound is 1 - (1 - confidence)^(1/n)
        return math.ceil(effect * math.log(1 - confidence) / math.log(1 - max_drop))
    lost = tango_lost(pairs.gained / pairs.n, pairs.lost / pairs.n, 1.0, -max_drop)
    under = math.sqrt(max(0.0, 2 * lost - max_drop - max_drop * max_drop))
    return _items(effect, z * under + z_of(POWER) * spread, pairs.mean + max_drop)


def items_to_show_loss(pairs: Paired, confidence: float = CONFIDENCE) -> int | None:
    """Return how many items would make the loss significant; None when nothing was lost."""
    if pairs.n == 0 or pairs.mean >= 0:
        return None
    spread = deviation(pairs.differences)
    effect, under = 1.0, spread
    if pairs.binary:
        effect = design_effect(pairs.differences, pairs.clusters)
        under = math.sqrt((pairs.lost + pairs.gained) / pairs.n)
    z = z_of(1 - (1 - confidence) / 2)
    return _items(effect, z * under + z_of(POWER) * spread, pairs.mean)


def _deviation(scores: Scores) -> float:
    """Return the deviation of one item that the cluster-robust error corresponds to."""
    return cluster_error(scores.values, scores.clusters) * math.sqrt(scores.n)


def _items(effect: float, width: float, distance: float) -> int | None:
    if math.isinf(width) or abs(distance) * math.sqrt(MOST_ITEMS) <= width * math.sqrt(effect):
        return None
    return max(1, math.ceil(effect * (width / distance) ** 2))


def _floored_items(items: int | None, z: float, distance: float) -> int | None:
    """Return `items`, at least as many as bring the floor of the error within the distance."""
    floor = z_of(CONFIDENCE)
    return items and max(items, math.ceil(z * floor / abs(distance) - floor * floor))
