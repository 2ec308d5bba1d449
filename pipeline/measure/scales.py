"""An adapter at smaller scales: the largest at which everything holds, and the curve to it. Pure.

What is asked at a scale is asked of whoever measures; nothing is asked that isn't needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.measure.gates import SCALES, first_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evals.verdicts.forgetting import GuardFinding
    from evals.verdicts.gap import ClosedFinding


class AtScale(NamedTuple):
    """One capability or guard at a scale: its score, and whether it is closed or kept."""

    score: float
    holds: bool


class Curve:
    """One adapter at smaller scales on dev: what holds there, and the scores on the way.

    Attributes:
        closed: tuned capability -> its finding at full scale.
        kept: the findings on all that must not be lost, at full scale.
        scores: scale -> name -> mean score, as far as it was asked.
    """

    def __init__(
        self,
        closed: Mapping[str, ClosedFinding],
        kept: Sequence[GuardFinding],
        measure: Callable[[float, str], AtScale],
    ) -> None:
        """Begin with the scores at full scale; `measure` gives those at others."""
        self.closed, self.kept, self._measure = closed, kept, measure
        full = {name: finding.score.mean for name, finding in closed.items()}
        self.scores = {1.0: full | {finding.guard: finding.after for finding in kept}}

    def holds(self, scale: float, name: str) -> bool:
        """Tell whether a gap is closed, or a guard kept, at a scale."""
        found = self._measure(scale, name)
        self.scores.setdefault(scale, {})[name] = found.score
        return found.holds


def smaller_scale(curve: Curve) -> float | None:
    """Return the largest scale below 1 at which everything holds on dev, measuring little more.

    A smaller scale gives back what was lost and closes no gap. So none is tried where nothing was
    lost, nor where even the smallest doesn't give back all that was lost. While a gap is open, what
    was lost and what is open are measured at every scale, for whoever has to weigh the two.
    """
    still = [name for name, finding in curve.closed.items() if finding.verdict != "closed"]
    worst = sorted((f for f in curve.kept if not f.passes), key=lambda f: f.after - f.before)
    lost = [finding.guard for finding in worst]
    if not lost:
        return None
    if still:
        for scale in SCALES[1:]:
            for name in (*lost, *still):
                curve.holds(scale, name)
    elif not all(curve.holds(min(SCALES), name) for name in lost):
        return None
    rest = [*curve.closed, *(f.guard for f in curve.kept)]
    order = list(dict.fromkeys([*lost, *still, *rest]))  # what decides soonest comes first
    return first_scale(SCALES[1:], lambda scale: all(curve.holds(scale, name) for name in order))
