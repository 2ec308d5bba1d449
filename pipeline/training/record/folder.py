"""The folder of a training: what it holds, and how far it has come, without loading torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.training.record.metrics import MetricsFile

if TYPE_CHECKING:
    from pathlib import Path

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
CHECKPOINT = re.compile(r"step-(\d{8})")

_PACE = 20  # steps that the pace is of


@dataclass(frozen=True)
class TrainingSoFar:
    """How far a training has come.

    Attributes:
        step: the last one that is done.
        steps: of so many.
        loss: in that step.
        validation_loss: at the last check; None before the first.
        learning_rate: of that step.
        tokens_per_second: in the last 20 steps.
        seconds_left: at their pace, without checks; none is left to one that has stopped.
        checkpoint: the step of the last checkpoint, from which it goes on; None before the first.
    """

    step: int
    steps: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    tokens_per_second: float
    seconds_left: float
    checkpoint: int | None


def so_far(workdir: Path) -> TrainingSoFar | None:
    """Return how far the training in a folder has come; None before its first step."""
    steps = MetricsFile(workdir / METRICS).read()
    if not steps:
        return None
    last, some = steps[-1], steps[-_PACE:]
    seconds = sum(one.seconds for one in some) or 1e-9
    checked = (one.validation_loss for one in reversed(steps))
    return TrainingSoFar(
        step=last.step,
        steps=last.steps,
        loss=last.loss,
        validation_loss=next((loss for loss in checked if loss is not None), None),
        learning_rate=last.learning_rate,
        tokens_per_second=sum(one.tokens for one in some) / seconds,
        seconds_left=(last.steps - last.step) * seconds / len(some),
        checkpoint=_last_checkpoint(workdir / CHECKPOINTS),
    )


def _last_checkpoint(root: Path) -> int | None:
    names = (path.name for path in root.iterdir()) if root.is_dir() else ()
    found = (CHECKPOINT.fullmatch(name) for name in names)
    return max((int(one[1]) for one in found if one), default=None)
