"""Watching a run: validation on a schedule, when to stop early, and which weights to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pipeline.training.loss import PackedRows
    from pipeline.training.metrics import StepMetrics

BEST = "best.safetensors"


@dataclass(frozen=True)
class Judged:
    """What the checks so far say.

    Attributes:
        best_step: of the check that was best; None before the first.
        stop: none of the last checks, as many as patience allows, was better.
    """

    best_step: int | None
    stop: bool


def judge(history: Sequence[StepMetrics], patience: int) -> Judged:
    """Judge a run by its checks, in order: by the probe where there is one, else by the loss.

    Of equal probes the one with the lower loss is better; of equals, the earlier one.
    """
    checks = [one for one in history if one.validation_loss is not None]
    if not checks:
        return Judged(None, stop=False)
    best = min(range(len(checks)), key=lambda index: (*_rank(checks[index]), index))
    return Judged(checks[best].step, stop=len(checks) - 1 - best >= patience)


def _rank(check: StepMetrics) -> tuple[float, float]:
    loss = check.validation_loss
    return (-(check.probe or 0.0), loss if loss is not None else float("inf"))


@torch.no_grad()
def validation_loss(
    model: torch.nn.Module,
    batches: Iterable[PackedRows],
    summed: Callable[[torch.nn.Module, PackedRows], torch.Tensor],
    trained_tokens: int,
) -> float:
    """Mean loss of the trained tokens of rows that are not trained on; the model in eval mode."""
    return sum(float(summed(model, batch)) for batch in batches) / trained_tokens
