"""The watch on a run: validation on a schedule, early stopping, and the weights to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pipeline.training.examples.encode import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.training.examples.packing import PackedBatch
    from pipeline.training.losses.objective import ForwardMode, Objective
    from pipeline.training.record.metrics import StepMetrics

BEST = "best.safetensors"


@dataclass(frozen=True)
class WatchVerdict:
    """What the checks so far say.

    Attributes:
        best_step: of the check that was best; None before the first.
        stop: none of the last checks, as many as patience allows, was better.
    """

    best_step: int | None
    stop: bool


def judge(history: Sequence[StepMetrics], patience: int) -> WatchVerdict:
    """Judge a run by its checks, in order: by the probe where there is one, else by the loss.

    Of equal probes the one with the lower loss is better; of equals, the earlier one.
    """
    checks = [one for one in history if one.validation_loss is not None]
    if not checks:
        return WatchVerdict(None, stop=False)
    best = min(range(len(checks)), key=lambda index: (*_rank(checks[index]), index))
    return WatchVerdict(checks[best].step, stop=len(checks) - 1 - best >= patience)


def _rank(check: StepMetrics) -> tuple[float, float]:
    loss = check.validation_loss
    return (-(check.probe or 0.0), loss if loss is not None else float("inf"))


@dataclass(frozen=True)
class Validation:
    """What a run is watched by.

    Attributes:
        objective: the run's, with rows that are not trained on.
        plan: their batches.
        every: steps between two checks.
        patience: checks without a better one, after which the run ends.
        probe: gives the share of a few items that the model gets right.
    """

    objective: Objective
    plan: Sequence[PackedBatch]
    every: int
    patience: int
    probe: Callable[[torch.nn.Module], float] | None = None


@torch.no_grad()
def validation_loss(
    model: torch.nn.Module, watched: Validation, pieces: int, ways: ForwardMode
) -> float:
    """Mean loss of rows that are not trained on, as a step's is; the model in eval mode."""
    objective = watched.objective
    rows = [position for batch in watched.plan for position in batch.rows]
    objective.prepare(model, rows, ways)
    total = sum(
        float(loss)
        for batch in watched.plan
        for loss in objective.losses(model, batch.rows, pieces, ways)
    )
    return total / int((objective.weights(rows) != IGNORED).sum())
