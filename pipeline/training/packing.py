"""Which rows go into which batch: a plan made before the first step, the same for the same seed.

Rows are never padded or cut: a batch is whole rows laid end to end. The plan of all epochs is one
flat list, so that the position in the data is one number, and resuming means starting there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one forward pass, the longest first, and the epoch (from 0) they belong to."""

    rows: tuple[int, ...]
    epoch: int


def plan_batches(
    lengths: Sequence[int], *, epochs: int, seed: int, budget: int
) -> tuple[Batch, ...]:
    """Lay out every epoch's batches.

    Args:
        lengths: tokens of each row, all above 0.
        epochs: passes over the rows; each has an order of its own.
        seed: decides the orders.
        budget: most tokens in a batch; a row longer than that is a batch of its own.

    Returns:
        Batches in training order; within an epoch each row is in exactly one of them, and their
        token counts are as even as the rows allow (a last batch of few tokens would be a step of
        full size on little evidence).
    """
    plan: list[Batch] = []
    for epoch in range(epochs):
        order = epoch_order(len(lengths), seed=seed, epoch=epoch)
        for rows in _even_cuts(lengths, order, budget):
            ordered = sorted(rows, key=lambda row: (-lengths[row], row))
            plan.append(Batch(rows=tuple(ordered), epoch=epoch))
    return tuple(plan)


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Positions 0..count-1 shuffled by hash: the same on every Python and machine."""

    def rank(position: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{epoch}:{position}".encode(), digest_size=16).digest()

    return sorted(range(count), key=rank)


def _even_cuts(lengths: Sequence[int], order: Sequence[int], budget: int) -> list[list[int]]:
    """Cut the order into runs of about equal tokens, none above the budget (or its only row)."""
    total = sum(lengths[row] for row in order)
    count = -(-total // budget) if order else 0
    while count:
        batches = _cut(lengths, order, total / count)
        if all(
            len(batch) == 1 or sum(lengths[row] for row in batch) <= budget for batch in batches
        ):
            return batches
        # Ends: once a share is below the shortest row, every batch is a single row.
        count = max(count + 1, count + count // 50)
    return []


def _cut(lengths: Sequence[int], order: Sequence[int], share: float) -> list[list[int]]:
    """Put each row into the share of the token line that its middle falls into."""
    batches: dict[int, list[int]] = {}
    begin = 0
    for row in order:
        batches.setdefault(int((begin + lengths[row] / 2) / share), []).append(row)
        begin += lengths[row]
    return list(batches.values())
