"""The verdict on forgetting: what a guard lost by a change of the model. Pure, no model.

`kept`: the one-sided lower bound of the paired difference is above -max_drop, so a larger loss is
ruled out. `forgotten`: more items were lost than gained, mid-p McNemar with Benjamini and
Hochberg's correction over all guards says so, and it isn't `kept`: a loss that is real but surely
within max_drop is what the spec allows. Anything else is `inconclusive`. Bounds are at 95% on dev,
and on test at what is left of it (looks.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evals.verdicts.looks import DEV, Level
from evals.verdicts.sample_size import items_to_show_kept, items_to_show_loss
from evals.verdicts.stats import (
    Interval,
    PairedItems,
    benjamini_hochberg,
    change_p,
    paired_difference,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

GuardVerdict = Literal["kept", "forgotten", "inconclusive"]


@dataclass(frozen=True, slots=True)
class PairedScores:
    """A guard's items, scored before and after; all sequences are in the order of `uids`.

    `witness`: nothing of it is trained on, so that it tells of what nobody replays.
    """

    name: str
    uids: tuple[int, ...]
    pairs: PairedItems
    max_drop: float
    accept: bool = False
    witness: bool = False

    def __post_init__(self) -> None:
        """Refuse uids that do not match the scores."""
        if len(self.uids) != self.pairs.n:
            message = f"guard {self.name}: {len(self.uids)} uids for {self.pairs.n} scores"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class GuardFinding:
    """The verdict on one guard, with every figure it rests on.

    `difference` is after - before; each of its bounds is one-sided. `accepted`: the guard is not
    kept and the spec takes that by name. `items_to_settle` is set for `inconclusive` alone.
    `witness`: nothing of it is trained on.
    """

    guard: str
    n: int
    before: float
    after: float
    lost: int
    gained: int
    lost_uids: tuple[int, ...]
    gained_uids: tuple[int, ...]
    difference: Interval
    max_drop: float
    p_midp: float
    p_bh: float
    verdict: GuardVerdict
    items_to_settle: int | None
    accepted: bool
    reason: str
    witness: bool = False

    @property
    def passes(self) -> bool:
        """Return whether promote may go on: kept, or accepted by the spec."""
        return self.verdict == "kept" or self.accepted


@dataclass(frozen=True, slots=True)
class Reprompt:
    """Lost items asked again, with another prompt: what comes back was hidden, not lost.

    Such pseudo-forgetting is common after tuning: the model no longer sees what is asked of it,
    and examples remind it. `came_back_uids` are the items that score what they did before.
    """

    arm: str
    asked: int
    came_back_uids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SubjectChange:
    """What a change of the model did to one capability or guard, whatever the verdict.

    Attributes:
        n: items, scored before and after.
        before: mean score; `after` likewise.
        lost: items that score less than before; `gained` more.
        difference: after - before; each bound is one-sided at 95%.
        chance: the mean score of guessing: of choices, one over their number; else 0.
        normalised_drop: the drop as a share of what there is above chance, (before - after) /
            (1 - chance): drops of two choices and of twenty compare.
        kl: mean KL(before || after) of the next token, along what was answered before, in nats;
            None where it wasn't measured.
        reprompt: what became of lost items when they were asked another way, if they were.
    """

    n: int
    before: float
    after: float
    lost: int
    gained: int
    difference: Interval
    chance: float
    normalised_drop: float
    kl: float | None = None
    reprompt: Reprompt | None = None


def change_of(pairs: PairedItems, chance: float) -> SubjectChange:
    """Return what changed from the first scores to the second.

    Args:
        pairs: the scores.
        chance: the mean score of guessing, at least 0 and below 1.
    """
    before = math.fsum(pairs.before) / pairs.n if pairs.n else 0.0
    after = math.fsum(pairs.after) / pairs.n if pairs.n else 0.0
    return SubjectChange(
        n=pairs.n,
        before=before,
        after=after,
        lost=pairs.lost,
        gained=pairs.gained,
        difference=paired_difference(pairs),
        chance=chance,
        normalised_drop=(before - after) / (1 - chance),
    )


def judge_guards(
    guards: Sequence[PairedScores], level: Level = DEV, later: Level | None = None
) -> list[GuardFinding]:
    """Judge every guard, with Benjamini and Hochberg's correction over all, in their order.

    Args:
        guards: their scores.
        level: the errors that the verdicts may make.
        later: the errors allowed to whoever looks again with more items; by default `level`.
    """
    p_values = [change_p(guard.pairs) for guard in guards]
    return [
        _judge(guard, p_value, p_bh, level, later or level)
        for guard, p_value, p_bh in zip(guards, p_values, benjamini_hochberg(p_values), strict=True)
    ]


def _judge(
    guard: PairedScores, p_value: float, p_bh: float, level: Level, later: Level
) -> GuardFinding:
    pairs, difference = guard.pairs, paired_difference(guard.pairs, level.of_bound)
    verdict: GuardVerdict = "inconclusive"
    if pairs.n and difference.low > -guard.max_drop:
        verdict = "kept"
    elif pairs.mean < 0 and p_bh <= level.interval:
        verdict = "forgotten"
    settle = _items_to_settle(guard, later) if verdict == "inconclusive" else None
    changes = list(zip(guard.uids, pairs.differences, strict=True))
    return GuardFinding(
        guard=guard.name,
        n=pairs.n,
        before=sum(pairs.before) / pairs.n if pairs.n else 0.0,
        after=sum(pairs.after) / pairs.n if pairs.n else 0.0,
        lost=pairs.lost,
        gained=pairs.gained,
        lost_uids=tuple(uid for uid, change in changes if change < 0),
        gained_uids=tuple(uid for uid, change in changes if change > 0),
        difference=difference,
        max_drop=guard.max_drop,
        p_midp=p_value,
        p_bh=p_bh,
        verdict=verdict,
        items_to_settle=settle,
        accepted=guard.accept and verdict != "kept",
        reason=_reason(guard, difference, verdict, p_bh, settle),
        witness=guard.witness,
    )


def _items_to_settle(guard: PairedScores, level: Level) -> int | None:
    ways = (
        items_to_show_kept(guard.pairs, guard.max_drop, level.of_bound),
        items_to_show_loss(guard.pairs, level.of_interval),
    )
    return min((way for way in ways if way is not None), default=None)


def _reason(
    guard: PairedScores, difference: Interval, verdict: str, p_bh: float, settle: int | None
) -> str:
    lost = f"{guard.pairs.lost} lost, {guard.pairs.gained} gained of {guard.pairs.n}"
    bound = f"at worst {difference.low:+.3f} where {-guard.max_drop:+.3f} is allowed"
    match verdict:
        case "kept":
            return f"{lost}: {bound}"
        case "forgotten":
            return f"{lost}: {difference.mean:+.3f}, corrected p = {p_bh:.2g}; {bound}"
        case _:
            items = f"about {settle:,} items" if settle else "no number of items"
            return f"{lost}: {bound}, and no loss is shown; {items} would settle it"
