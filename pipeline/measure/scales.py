"""An adapter at smaller scales: the largest at which everything holds, and the curve to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.forget import judge
from pipeline.measure.gates import SCALES, first_scale, holds
from pipeline.measure.measure import TunedModel

if TYPE_CHECKING:
    from pipeline.forget import ForgetReport
    from pipeline.gap import GapReport
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui


class Curve:
    """One adapter at smaller scales on dev: what holds there, and the scores on the way."""

    def __init__(self, ws: Resolved, ui: Ui, found: GapReport, report: ForgetReport) -> None:
        """Begin with the scores at full scale.

        Args:
            ws: the workspace.
            ui: where progress is shown.
            found: the gaps of its base.
            report: what it lost and closed at full scale.
        """
        self._ws, self._ui, self._found, self.report = ws, ui, found, report
        full = {name: finding.score.mean for name, finding in report.closed.items()}
        self.scores = {1.0: full | {finding.guard: finding.after for finding in report.kept}}

    def holds(self, scale: float, name: str) -> bool:
        """Tell whether a gap is closed, or a guard kept, at a scale."""
        tuned = TunedModel(self.report.adapter_id, scale)
        judged = judge(self._ws, self._ui, self._found, tuned, "dev", only={name})
        self.scores.setdefault(scale, {})[name] = judged.changes[name].after
        return holds(judged.closed.values(), judged.kept)


def smaller_scale(curve: Curve) -> float | None:
    """Return the largest scale below 1 at which everything holds on dev, measuring little more.

    A smaller scale gives back what was lost and closes no gap. So none is tried where nothing was
    lost, nor where even the smallest doesn't give back all that was lost. While a gap is open, what
    was lost and what is open are measured at every scale, for whoever has to weigh the two.
    """
    report = curve.report
    still = [name for name, finding in report.closed.items() if finding.verdict != "closed"]
    worst = sorted((f for f in report.kept if not f.passes), key=lambda f: f.after - f.before)
    lost = [finding.guard for finding in worst]
    if not lost:
        return None
    if still:
        for scale in SCALES[1:]:
            for name in (*lost, *still):
                curve.holds(scale, name)
    elif not all(curve.holds(min(SCALES), name) for name in lost):
        return None
    rest = [*report.closed, *(f.guard for f in report.kept)]
    order = list(dict.fromkeys([*lost, *still, *rest]))  # what decides soonest comes first
    return first_scale(SCALES[1:], lambda scale: all(curve.holds(scale, name) for name in order))
