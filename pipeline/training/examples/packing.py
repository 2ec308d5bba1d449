"""The plan of packed batches: made before the first step, the same for the same seed.

Rows are never padded or cut: a batch is whole rows laid end to end. Rows of one prompt stay
together, so that the prompt goes through the model once. The plan of all epochs is one flat list,
so that the position in the data is one number, and resuming means starting there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.training.examples.encode import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from pipeline.training.examples.encode import EncodedRow

# Below it, attending a tree costs about what its shared tokens save.
_WORTH_SHARING = 16


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows of one forward pass, the longest first, and the epoch (from 0) they belong to."""

    rows: tuple[int, ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class Family:
    """Rows, by position, of one prompt, and how many of their first tokens are the same."""

    rows: tuple[int, ...]
    prefix: int


@dataclass(frozen=True, slots=True)
class RowLimits:
    """How many rows make a batch.

    Attributes:
        most: in one batch.
        batches: that there should be at least; batches of fewer rows are made for it.
        fewest: that they are made of.
    """

    most: int
    batches: int = 1
    fewest: int = 1

    def among(self, rows: int) -> int:
        """Most rows of a batch, where there are so many in all epochs together."""
        return min(self.most, max(self.fewest, rows // self.batches, 1))


@dataclass(frozen=True, slots=True)
class _Limits:
    """Most tokens of a batch, and most rows where they are limited."""

    tokens: int
    rows: int | None

    @property
    def room(self) -> int:
        return self.tokens * (self.rows or 1)

    def cost(self, unit: _Unit) -> int:
        """What a unit takes of the room, by the limit that it takes more of."""
        if self.rows is None:
            return unit.tokens
        return max(unit.tokens * self.rows, len(unit.rows) * self.tokens)

    def hold(self, tokens: int, rows: int) -> bool:
        return tokens <= self.tokens and (self.rows is None or rows <= self.rows)


def families(rows: Sequence[EncodedRow]) -> tuple[Family, ...]:
    """Find rows with one prompt (the tokens before the first trained one), in the rows' order.

    What they share may be longer than the prompt, but leaves each row a token of its own. Examples
    of one conversation have prompts that go on from each other: neighbours among them share that
    of the first.
    """
    by_prompt: dict[bytes, list[int]] = {}
    by_row: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        prompt = row.input_ids[: _question(row)]
        by_prompt.setdefault(prompt.tobytes(), []).append(position)
    for members in by_prompt.values():
        if len(members) == 1:
            by_row.setdefault(rows[members[0]].uid, []).extend(members)
    alike = [members for members in by_prompt.values() if len(members) > 1]
    found = [Family(tuple(m), _shared_tokens([rows[row].input_ids for row in m])) for m in alike]
    for members in by_row.values():
        found += _chained(rows, members)
    return tuple(family for family in found if family.prefix >= _WORTH_SHARING)


def _question(row: EncodedRow) -> int:
    return int((row.labels != IGNORED).argmax())


def _chained(rows: Sequence[EncodedRow], members: Sequence[int]) -> list[Family]:
    """Cut the examples of one conversation, by length of prompt, into runs that share most.

    `saved[n]` is the most tokens that the first n examples can save; the last run of them begins
    at one of the examples before, and shares what all of it have in common.
    """
    ordered = sorted(members, key=lambda member: _question(rows[member]))
    saved, runs = [0], [tuple[Family, ...]()]
    for end in range(1, len(ordered) + 1):
        best, chosen = saved[end - 1], runs[end - 1]
        for begin in range(end - 1):
            run = ordered[begin:end]
            prompt = min(
                _question(rows[run[0]]), _shared_tokens([rows[row].input_ids for row in run])
            )
            if saved[begin] + prompt * (len(run) - 1) > best:
                best = saved[begin] + prompt * (len(run) - 1)
                chosen = (*runs[begin], Family(tuple(run), prompt))
        saved.append(best)
        runs.append(chosen)
    return list(runs[-1])


def _shared_tokens(rows: Sequence[np.ndarray]) -> int:
    shared = min(len(ids) for ids in rows) - 1
    for ids in rows[1:]:
        other = rows[0][:shared] != ids[:shared]
        if other.any():
            shared = int(other.argmax())
    return shared


def plan_batches(
    lengths: Sequence[int],
    *,
    epochs: float,
    seed: int,
    budget: int,
    shared: Sequence[Family] = (),
    rows: RowLimits | None = None,
) -> tuple[PackedBatch, ...]:
    """Lay out every epoch's batches.

    Args:
        lengths: tokens of each row, all above 0.
        epochs: passes over the rows; each has an order of its own, of which a part of a pass is
            the first part.
        seed: decides the orders.
        budget: most tokens in a batch, shared ones counted once; a row longer than that is a batch
            of its own.
        shared: rows that are kept together as far as the limits allow; none is in two families.
        rows: how many make a batch, where their tokens alone don't decide it.

    Returns:
        Batches in training order; within a whole epoch each row is in exactly one of them, and
        they are as even as the rows allow (a last batch of few tokens would be a step of full
        size on little evidence).
    """
    counts = _epoch_counts(len(lengths), epochs)
    limits = _Limits(budget, rows.among(sum(counts)) if rows else None)
    plan: list[PackedBatch] = []
    for epoch, count in enumerate(counts):
        order = epoch_order(len(lengths), seed=seed, epoch=epoch)[:count]
        units = list(_units(lengths, order, shared, limits))
        for batch in _even_cuts(units, limits):
            chosen = (row for unit in batch for row in unit.rows)
            ordered = sorted(chosen, key=lambda row: (-lengths[row], row))
            plan.append(PackedBatch(rows=tuple(ordered), epoch=epoch))
    return tuple(plan)


def _epoch_counts(rows: int, epochs: float) -> list[int]:
    """How many rows each pass has: all of them, and of the last its part, one at least."""
    whole = int(epochs)
    part = epochs - whole
    return [rows] * whole + ([max(1, round(part * rows))] if part and rows else [])


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Positions 0..count-1 shuffled by hash: the same on every Python and machine."""

    def rank(position: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{epoch}:{position}".encode(), digest_size=16).digest()

    return sorted(range(count), key=rank)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Rows that aren't parted, and the tokens they take in a batch."""

    rows: tuple[int, ...]
    tokens: int


def _units(
    lengths: Sequence[int], order: Sequence[int], shared: Sequence[Family], limits: _Limits
) -> Iterator[_Unit]:
    """Yield rows in the order given, a family where its first row stands."""
    family_of = {row: family for family in shared for row in family.rows}
    members: dict[Family, list[int]] = {}
    for row in order:
        if row in family_of:
            members.setdefault(family_of[row], []).append(row)
    for row in order:
        if row not in family_of:
            yield _Unit((row,), lengths[row])
        elif members[family_of[row]][0] == row:
            yield from _parts(lengths, members[family_of[row]], family_of[row].prefix, limits)


def _parts(
    lengths: Sequence[int], rows: list[int], prefix: int, limits: _Limits
) -> Iterator[_Unit]:
    """Yield a family's rows, in several parts where they are over a limit."""
    part: list[int] = []
    tokens = prefix
    for row in rows:
        own = lengths[row] - prefix
        if part and not limits.hold(tokens + own, len(part) + 1):
            yield _Unit(tuple(part), tokens)
            part, tokens = [], prefix
        part.append(row)
        tokens += own
    yield _Unit(tuple(part), tokens)


def _even_cuts(units: Sequence[_Unit], limits: _Limits) -> list[list[_Unit]]:
    """Cut the order into runs that take about equal room, none above a limit (or its only unit)."""
    costs = [limits.cost(unit) for unit in units]
    total = sum(costs)
    count = -(-total // limits.room) if units else 0
    least = min(count, len(units))
    while count:
        batches = _cut(units, costs, total / count)
        if len(batches) >= least and all(_fits(batch, limits) for batch in batches):
            return batches
        # Ends: once a share is below the smallest unit, every batch is a single one.
        count = max(count + 1, count + count // 50)
    return []


def _fits(batch: Sequence[_Unit], limits: _Limits) -> bool:
    if len(batch) == 1:
        return True
    return limits.hold(sum(unit.tokens for unit in batch), sum(len(unit.rows) for unit in batch))


def _cut(units: Sequence[_Unit], costs: Sequence[int], share: float) -> list[list[_Unit]]:
    """Put each unit into the share of the line of costs that its middle falls into."""
    batches: dict[int, list[_Unit]] = {}
    begin = 0
    for unit, cost in zip(units, costs, strict=True):
        batches.setdefault(int((begin + cost / 2) / share), []).append(unit)
        begin += cost
    return list(batches.values())
