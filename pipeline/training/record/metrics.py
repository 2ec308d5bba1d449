"""Metrics of a run: a line a step, in a file beside the checkpoints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One optimizer step.

    Attributes:
        step: from 1.
        steps: of the whole run.
        epoch: which pass over the rows, from 0.
        loss: mean over the step's trained tokens.
        learning_rate: that the step was made with.
        grad_norm: before clipping at 1.
        tokens: of all rows in the step; none is padding.
        trained_tokens: those with a label.
        seconds: that the step took, with the checkpoint before it.
        validation_loss: mean over the trained tokens of the validation rows, where it was looked at
            after the step.
        probe: share of the probe's items that were right, likewise.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    trained_tokens: int
    seconds: float
    validation_loss: float | None = None
    probe: float | None = None


class MetricsFile:
    """The steps of a run as JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, *, after: int) -> None:
        """Keep the lines up to step `after`: the rest will be made again."""
        kept = [step for step in self.read() if step.step <= after]
        draft = self._path.with_suffix(".tmp")
        draft.write_text("".join(_line(step) for step in kept), encoding="utf-8")
        draft.rename(self._path)

    def append(self, step: StepMetrics) -> None:
        """Add a step; it survives the process from then on, though not a power cut."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(step))

    def read(self) -> tuple[StepMetrics, ...]:
        """All steps so far, in order; a line that a kill cut short is left out."""
        if not self._path.exists():
            return ()
        from pydantic import TypeAdapter

        step_from = TypeAdapter(StepMetrics).validate_json
        steps: list[StepMetrics] = []
        for line in self._path.read_text("utf-8").splitlines():
            try:
                steps.append(step_from(line))
            except ValueError:
                continue
        return tuple(steps)


def _line(step: StepMetrics) -> str:
    return json.dumps(asdict(step)) + "\n"
