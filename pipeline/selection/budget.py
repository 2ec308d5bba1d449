"""Budgets of rows: by gaps, over labels, and after losses. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

GAP_POWER = 0.5
"""Rows grow with the root of the gap: a gap four times as wide gets twice the rows."""

FLOOR = 0.1
"""The least share of the rows that a capability with a gap gets (an equal share, if less)."""

LABEL_FLOOR = 0.75
"""Each label of a choice gets this part of its equal share; what is drawn decides on the rest.

A frequent label would leave rare ones too few rows to be learnt.
"""
GROWTH = 0.25
"""What a capability that is still open gets on top of its rows in one round."""

LEAST_FILL = 0.1
"""The least share of the rows that is added for something lost, in one round."""

MOST_ROWS = 3
"""A mended selection is at most so many times as large as the spec's budget."""


def budget(gaps: Mapping[str, float], total: int, floor: float = FLOOR) -> dict[str, int]:
    """Divide `total` rows over `gaps`, proportional to gap ** 0.5, each at least `floor`.

    Args:
        gaps: capability -> gap, 0 to 1; one without a gap (0 or less) gets no rows.
        total: rows to give away; all of them are, if there is any gap.
        floor: least share of `total` for a gap, between 0 and 1.
    """
    weights = {name: gap**GAP_POWER for name, gap in gaps.items() if gap > 0}
    if not weights:
        return dict.fromkeys(gaps, 0)
    least = min(floor, 1 / len(weights))
    shares: dict[str, float] = {}
    free = dict(weights)
    while True:  # who would fall below the floor is set to it; the others share what is left
        left = 1 - least * len(shares)
        scale = left / sum(free.values())
        low = [name for name, weight in free.items() if weight * scale < least]
        if not low or len(low) == len(free):
            break
        shares |= dict.fromkeys(low, least)
        free = {name: weight for name, weight in free.items() if name not in shares}
    shares |= {name: weight * scale for name, weight in free.items()}
    return dict.fromkeys(gaps, 0) | whole_numbers(shares, total)


def whole_numbers(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Round `shares` (any positive scale) to whole numbers that add up to `total`.

    The largest remainders are rounded up; of equal ones, the first name in the alphabet.
    """
    sum_of = sum(shares.values())
    if not shares or sum_of <= 0:
        return dict.fromkeys(shares, 0)
    exact = {name: share / sum_of * total for name, share in shares.items()}
    given = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (given[name] - exact[name], name))
    for name in by_remainder[: total - sum(given.values())]:
        given[name] += 1
    return given


def label_quota(available: Mapping[str, int], total: int) -> dict[str, int]:
    """Return the least number of rows for each label, of `total` rows for its capability.

    Args:
        available: label -> rows that there are of it.
        total: rows for the capability. Where it is less than the labels, the labels that come
            first in the alphabet get one row each.
    """
    labels = sorted(label for label, rows in available.items() if rows > 0)
    if not labels or total <= 0:
        return dict.fromkeys(available, 0)
    equal = max(1, math.floor(LABEL_FLOOR * total / len(labels)))
    quota = {label: min(equal, available[label]) for label in labels[:total]}
    return dict.fromkeys(available, 0) | quota


@dataclass(frozen=True)
class Budget:
    """Rows by capability for the gaps, and rows by source (capability or guard) for replay."""

    gap: Mapping[str, int]
    replay: Mapping[str, int]

    @property
    def total(self) -> int:
        """All rows of the selection."""
        return sum(self.gap.values()) + sum(self.replay.values())


@dataclass(frozen=True, slots=True)
class Supply:
    """What can be replayed under one name.

    Attributes:
        rows: that there are.
        tokens: of a row, on average.
        at_risk: the share of its answers that the base can lose, 0 to 1: what it gets right beyond
            guessing; 1 where its own answers are kept as they are.
    """

    rows: int
    tokens: float
    at_risk: float


def replay_shares(supplies: Mapping[str, Supply], rows: int) -> dict[str, int]:
    """Divide `rows` so that each name's share of the tokens is as large as what it can lose.

    Divided evenly by rows, a guard of short questions would have next to no part in what is
    trained. What a name has no rows for goes to the others.

    Args:
        supplies: what there is under each name.
        rows: to give away; fewer are given where fewer are there.
    """
    there = {name: supply for name, supply in supplies.items() if supply.rows > 0}
    weights = {name: one.at_risk / max(1.0, one.tokens) for name, one in there.items()}
    free = {name: weight for name, weight in weights.items() if weight > 0}
    free = free or dict.fromkeys(there, 1.0)  # nothing to lose by any figure: evenly
    given: dict[str, int] = {}
    while free:
        spread = whole_numbers(free, rows - sum(given.values()))
        used_up = [name for name, share in spread.items() if share >= supplies[name].rows]
        if not used_up:
            given |= spread
            break
        given |= {name: supplies[name].rows for name in used_up}
        free = {name: weight for name, weight in free.items() if name not in given}
    return dict.fromkeys(supplies, 0) | given


def first_budget(
    gaps: Mapping[str, float],
    sources: Mapping[str, Supply],
    rows: int,
    replay: float,
    general: Mapping[str, int] | None = None,
) -> Budget:
    """Return the budget of the first selection: `replay` of the rows by `replay_shares`.

    Args:
        gaps: capability to tune -> its gap.
        sources: what can be replayed.
        rows: all rows.
        replay: the share that is replayed, 0 to below 1.
        general: rows that are replayed beside them, by what they go by.
    """
    replayed = replay_shares(sources, round(rows * replay)) | dict(general or {})
    return Budget(budget(gaps, rows - sum(replayed.values())), replayed)


@dataclass(frozen=True)
class Need:
    """What one subject lacks after a round.

    Attributes:
        verdict: of a capability `closed`, `open` or `inconclusive`; of what must not be lost
            `kept`, `forgotten` or `inconclusive`. An accepted loss counts as `kept`.
        loss: how much of the score was lost, 0 to 1.
    """

    verdict: Literal["closed", "open", "kept", "forgotten", "inconclusive"]
    loss: float = 0.0


def next_budget(
    current: Budget,
    capabilities: Mapping[str, Need],
    guards: Mapping[str, Need],
    *,
    rows: int,
) -> Budget:
    """Return the next round's budget: rows are added for what was lost or is still open.

    What was lost gets as many rows again as it had, and at least 10% of `rows` (half of that if it
    is inconclusive). Open capabilities get 25% more. What was closed or kept keeps its rows: taking
    them away opened again what was closed (docs/internals/decisions/0009).

    Args:
        current: the last selection's budget.
        capabilities: those with a gap budget.
        guards: what must not be lost, guards and met capabilities; one that is not in
            `current.replay` can't be filled in and is left out.
        rows: the spec's budget, which limits the total to three times as many.
    """
    gap = {
        name: had + (math.ceil(had * GROWTH) if _is_open(capabilities.get(name)) else 0)
        for name, had in current.gap.items()
    }
    replay = {
        name: had + (_fill(had, guards[name], rows) if name in guards else 0)
        for name, had in current.replay.items()
    }
    return _within(Budget(gap, replay), current, rows * MOST_ROWS)


def _is_open(need: Need | None) -> bool:
    return need is not None and need.verdict != "closed"


def _fill(had: int, need: Need, rows: int) -> int:
    if need.verdict == "kept":
        return 0
    least = LEAST_FILL * rows / (2 if need.verdict == "inconclusive" else 1)
    return max(had, math.ceil(least))


def _within(wanted: Budget, current: Budget, most: int) -> Budget:
    """Return `wanted`, its additions cut evenly so that the total is at most `most` rows."""
    if wanted.total <= most:
        return wanted
    added = {name: rows - current.replay[name] for name, rows in wanted.replay.items()}
    grown = {name: rows - current.gap[name] for name, rows in wanted.gap.items()}
    kept = wanted.total - sum(added.values()) - sum(grown.values())
    spread = whole_numbers(
        {f"replay {n}": float(r) for n, r in added.items()}
        | {f"gap {n}": float(r) for n, r in grown.items()},
        max(0, most - kept),
    )
    return Budget(
        {n: rows - grown[n] + spread[f"gap {n}"] for n, rows in wanted.gap.items()},
        {n: rows - added[n] + spread[f"replay {n}"] for n, rows in wanted.replay.items()},
    )
