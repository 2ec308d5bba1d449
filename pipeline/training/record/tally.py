"""The tally of one optimizer step over its batches."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from pipeline.training.record.metrics import StepMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from pipeline.training.examples.encode import EncodedRow


class StepTally:
    """What a step has so far; made anew for each step."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._began = time.perf_counter()
        self.uids: tuple[int, ...] = ()
        self.tokens = 0
        self.trained_tokens = 0
        self.epoch = 0
        self.learning_rate = math.nan

    def add(self, loss: torch.Tensor, rows: Sequence[EncodedRow], trained: int, epoch: int) -> None:
        """Count one batch: `loss` is its share of the step's."""
        self._losses.append(loss)
        self.uids += tuple(row.uid for row in rows)
        self.tokens += sum(row.tokens for row in rows)
        self.trained_tokens = trained
        self.epoch = epoch

    def forget(self) -> None:
        """Begin the step again; its time goes on."""
        self._losses, self.uids, self.tokens = [], (), 0

    @property
    def loss(self) -> float:
        """The step's mean loss over trained tokens."""
        return float(sum(loss.item() for loss in self._losses))

    def metrics(self, step: int, steps: int, grad_norm: float) -> StepMetrics:
        """Return the step's figures."""
        return StepMetrics(
            step=step,
            steps=steps,
            epoch=self.epoch,
            loss=self.loss,
            learning_rate=self.learning_rate,
            grad_norm=grad_norm,
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            seconds=time.perf_counter() - self._began,
        )
