"""A small subclass of `transformers.Trainer`: packed batches, our loss, our checkpoints.

What the Trainer brings stays: the loop, accumulation, clipping, schedules, accelerate. The whole
plan of batches, all epochs of it, is one epoch to it, so its position in the data is its step.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.training import checkpoint as checkpoints
from pipeline.training.lora import trainable
from pipeline.training.loss import PackedRows, pack_rows, packed_loss, row_by_row_loss
from pipeline.training.metrics import StepMetrics
from registry.errors import StoreError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.training.encode import EncodedRow
    from pipeline.training.packing import Batch
    from pipeline.training.spec import TrainSpec

_WARMUP = 0.05
_MAX_NORM = 1.0
_NAMED_ROWS = 8


class DivergedError(UserError):
    """The loss is no longer a number: the step before it is the last good one."""


class PlannedBatches(Dataset[dict[str, Any]]):
    """The plan's batches as the model's inputs."""

    def __init__(self, rows: Sequence[EncodedRow], plan: Sequence[Batch]) -> None:
        self._rows = rows
        self._plan = plan

    def __len__(self) -> int:
        """How many batches the plan has."""
        return len(self._plan)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The inputs of one batch."""
        batch = self._plan[index]
        packed = pack_rows([self._rows[row] for row in batch.rows])
        # `labels` by its own name is what the Trainer counts trained tokens in.
        return {
            "labels": packed.labels,
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "lengths": packed.lengths,
            "uids": packed.uids,
            "epoch": batch.epoch,
        }


@dataclass(frozen=True)
class Run:
    """What one training run is made of, beside the model.

    Attributes:
        spec: how to train.
        rows: encoded rows.
        plan: their batches.
        packed: whether rows of a batch go through the model in one pass.
        root: where checkpoints are kept.
        fingerprint: of everything that decides the outcome.
        on_step: is told of each step.
    """

    spec: TrainSpec
    rows: Sequence[EncodedRow]
    plan: Sequence[Batch]
    packed: bool
    root: Path
    fingerprint: str
    on_step: Callable[[StepMetrics], None]

    @property
    def steps(self) -> int:
        """How many optimizer steps the plan makes."""
        return math.ceil(len(self.plan) / self.spec.accumulation)


def train(model: torch.nn.Module, run: Run, start: checkpoints.Checkpoint | None) -> None:
    """Train the model's trainable weights by the run's plan, from its start or a checkpoint."""
    from transformers.utils import logging

    shown = logging.get_verbosity()
    try:
        trainer = PackedTrainer(model, run)
        trainer.remove_callback(PrinterCallback)
        model.train()
        trainer.train(resume_from_checkpoint=str(start.path) if start else None)
    finally:
        logging.set_verbosity(shown)


class PackedTrainer(Trainer):
    """Trains on a plan of packed batches and resumes to the bit."""

    loss_is_scaled_for_ga = True

    def __init__(self, model: torch.nn.Module, run: Run) -> None:
        self._run = run
        self._loss = packed_loss if run.packed else row_by_row_loss
        self._step = _StepTally()
        self._grad_norm = math.nan
        super().__init__(model=model, args=_arguments(run, model), callbacks=[_Report(self)])
        self._trained = trainable(model)
        # Without it the Trainer would not count the trained tokens of a whole step.
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches in the plan's order: all shuffling was done there."""
        data = PlannedBatches(self._run.rows, self._run.plan)
        return DataLoader(data, batch_size=1, collate_fn=_only_item)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW without decay, in one fused call over all matrices."""
        self.optimizer: torch.optim.Optimizer | None
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                list(trainable(model or self.model).values()),
                lr=self._run.spec.learning_rate,
                weight_decay=0.0,
                fused=True,
            )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """A short rise and half a cosine; transformers' own makes the first step at rate 0."""
        self.lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.create_optimizer(),
                lambda step: _share_of_rate(step, num_training_steps),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Forward and backward of one batch; the Trainer's own walks all modules first."""
        inputs = self._prepare_inputs(inputs)
        loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002  the Trainer's signature
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The batch's share of the step's mean loss over trained tokens."""
        if return_outputs or num_items_in_batch is None:
            raise ValueError("only training steps, which know their trained tokens, are made here")
        rows = PackedRows(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            labels=inputs["labels"],
            lengths=inputs["lengths"],
            uids=inputs["uids"],
        )
        loss = self._loss(model, rows) / num_items_in_batch
        self._step.add(loss.detach(), rows, int(num_items_in_batch), inputs["epoch"])
        return loss

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clip, and stop before a step that would put NaN into the weights."""
        del model  # whose other parameters have no gradient and need not be walked
        norm = self.accelerator.clip_grad_norm_(list(self._trained.values()), _MAX_NORM)
        self._grad_norm = float(norm)
        if not (math.isfinite(self._grad_norm) and math.isfinite(self._step.loss)):
            raise self._diverged()
        self._step.learning_rate = self._get_learning_rate()
        return norm

    def _diverged(self) -> DivergedError:
        step = self.state.global_step + 1
        named = ", ".join(str(uid) for uid in self._step.uids[:_NAMED_ROWS])
        more = len(self._step.uids) - _NAMED_ROWS
        good = checkpoints.last_checkpoint(self._run.root, self._run.fingerprint)
        kept = (
            f"the checkpoint of step {good.step} is kept" if good else "no step is lost but these"
        )
        return DivergedError(
            f"the loss is {self._step.loss} (gradient norm {self._grad_norm}) at step {step}, "
            f"with rows {named}{f' and {more} more' if more > 0 else ''}; {kept}",
            fix=f"lower train.learning_rate (now {self._run.spec.learning_rate}), "
            "or look at these rows",
        )

    def report(self) -> None:
        """Tell the run's listener of the step that was just made; start the next one."""
        tally, self._step = self._step, _StepTally()
        self._run.on_step(tally.metrics(self.state.global_step, self._run.steps, self._grad_norm))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at every step."""
        del inputs
        return 0

    def _training(self) -> checkpoints.Training:
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # within accelerate's
        return checkpoints.Training(self._trained, optimizer, self.lr_scheduler)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        del model, trial
        checkpoints.save_checkpoint(
            self._run.root,
            self.state.global_step,
            self._training(),
            fingerprint=self._run.fingerprint,
            trainer=json.dumps(asdict(self.state)),
        )

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        del model
        checkpoints.load_weights(_read(resume_from_checkpoint), self._trained)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_training(_read(checkpoint), self._training())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_rng(_read(checkpoint))


def _read(path: str) -> checkpoints.Checkpoint:
    found = checkpoints.read_checkpoint(Path(path))
    if found is None:
        raise StoreError(f"the checkpoint {path} was damaged while it was being used")
    return found


class _StepTally:
    """Adds up the batches of one optimizer step."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._began = time.perf_counter()
        self.uids: tuple[int, ...] = ()
        self.tokens = 0
        self.trained_tokens = 0
        self.epoch = 0
        self.learning_rate = math.nan

    def add(self, loss: torch.Tensor, rows: PackedRows, trained: int, epoch: int) -> None:
        self._losses.append(loss)
        self.uids += rows.uids
        self.tokens += sum(rows.lengths)
        self.trained_tokens = trained
        self.epoch = epoch

    @property
    def loss(self) -> float:
        return float(sum(loss.item() for loss in self._losses))

    def metrics(self, step: int, steps: int, grad_norm: float) -> StepMetrics:
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


class _Report(TrainerCallback):
    """Reports each step."""

    def __init__(self, trainer: PackedTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, state, control, kwargs
        self._trainer.report()


def _share_of_rate(step: int, steps: int) -> float:
    """Share of the peak rate at a step (from 0) of a run: above 0 from the first to the last."""
    warmup = int(steps * _WARMUP)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


def _only_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    return items[0]


def _arguments(run: Run, model: torch.nn.Module) -> TrainingArguments:
    device = next(model.parameters()).device
    return TrainingArguments(
        output_dir=str(run.root),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        gradient_accumulation_steps=run.spec.accumulation,
        learning_rate=run.spec.learning_rate,
        max_grad_norm=_MAX_NORM,
        save_strategy="steps",
        save_steps=run.spec.checkpoint_steps,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=device.type == "cpu",
        seed=run.spec.seed,
    )
