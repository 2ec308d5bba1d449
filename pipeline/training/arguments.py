"""The arguments of transformers' Trainer for a run, and the schedule of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import TrainingArguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from pipeline.spec.train import TrainSpec
    from pipeline.training.examples.packing import PackedBatch
    from pipeline.training.losses.objective import ForwardMode, Objective
    from pipeline.training.record.metrics import StepMetrics
    from pipeline.training.record.watch import Validation


# The trainer's own clipping looks at every norm, clipped or not; transformers leaves it out at 0.
_LOOKED_AT = 1.0


def arguments(run: TrainingRun, model: torch.nn.Module) -> TrainingArguments:
    """Return them: no reports, no evaluation, one batch of the plan at a time."""
    device = next(model.parameters()).device
    return TrainingArguments(
        output_dir=str(run.root),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        gradient_accumulation_steps=run.spec.accumulation,
        learning_rate=run.spec.rate,
        max_grad_norm=_LOOKED_AT,
        save_strategy="steps",
        save_steps=run.spec.checkpoint_steps,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        average_tokens_across_devices=False,  # each process counts the tokens of all of them
        dataloader_pin_memory=False,
        use_cpu=device.type == "cpu",
        seed=run.spec.seed,
    )


def share_of_rate(step: int, steps: int, spec: TrainSpec) -> float:
    """Share of the peak rate at a step (from 0) of a run: above 0 from the first to the last."""
    warmup = int(steps * spec.warmup)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    gone = (step - warmup) / max(1, steps - warmup)
    if spec.schedule == "constant":
        return 1.0
    return 1 - gone if spec.schedule == "linear" else 0.5 + 0.5 * math.cos(math.pi * gone)


@dataclass(frozen=True)
class TrainingRun:
    """What one training run is made of, beside the model.

    Attributes:
        spec: how to train.
        objective: what is learnt, with its encoded rows.
        plan: their batches.
        ways: how rows go through the model.
        root: where checkpoints are kept.
        fingerprint: of everything that decides the outcome.
        on_step: is told of each step.
        log: is told what a person should know.
        validation: how the run is watched, if it is.
        history: the steps before the one that it begins with.
    """

    spec: TrainSpec
    objective: Objective
    plan: Sequence[PackedBatch]
    ways: ForwardMode
    root: Path
    fingerprint: str
    on_step: Callable[[StepMetrics], None]
    log: Callable[[str], None]
    validation: Validation | None = None
    history: Sequence[StepMetrics] = ()

    @property
    def steps(self) -> int:
        """How many optimizer steps the plan makes."""
        return math.ceil(len(self.plan) / self.spec.accumulation)
