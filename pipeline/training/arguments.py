"""How transformers' Trainer is set up for a run, and the schedule of its learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from transformers import TrainingArguments

if TYPE_CHECKING:
    import torch

    from pipeline.training.trainer import Run

MAX_NORM = 1.0
_WARMUP = 0.05


def arguments(run: Run, model: torch.nn.Module) -> TrainingArguments:
    """Return them: no reports, no evaluation, one batch of the plan at a time."""
    device = next(model.parameters()).device
    return TrainingArguments(
        output_dir=str(run.root),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        gradient_accumulation_steps=run.spec.accumulation,
        learning_rate=run.spec.rate,
        max_grad_norm=MAX_NORM,
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


def share_of_rate(step: int, steps: int) -> float:
    """Share of the peak rate at a step (from 0) of a run: above 0 from the first to the last."""
    warmup = int(steps * _WARMUP)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))
