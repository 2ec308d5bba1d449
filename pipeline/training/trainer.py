"""A small subclass of `transformers.Trainer`: packed batches, our loss, our checkpoints.

What the Trainer brings stays: the loop, accumulation, clipping, schedules, accelerate. The whole
plan of batches, all epochs of it, is one epoch to it, so its position in the data is its step.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback

from pipeline.training.arguments import TrainingRun, arguments, share_of_rate
from pipeline.training.losses.batches import PlannedBatches, is_out_of_memory
from pipeline.training.machine import processes
from pipeline.training.methods.lora import trainable
from pipeline.training.methods.methods import rate_groups
from pipeline.training.record import checkpoint as checkpoints
from pipeline.training.record.tally import StepTally
from pipeline.training.record.watch import BEST, Validation, WatchVerdict, judge, validation_loss
from registry.errors import MachineError, ModelError, StoreError
from registry.models.parts import decoder_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.training.record.metrics import StepMetrics

_NAMED_ROWS = 8


class DivergedError(ModelError):
    """The loss is no longer a number: the step before it is the last good one."""


@dataclass(frozen=True)
class TrainingEnd:
    """How a run ended.

    Attributes:
        pieces: in how many pieces batches went through the model at the end, for want of memory.
        kept_step: the step whose weights the model has now; None where it is the last.
        sharded: whether each process held a part of the weights (FSDP).
    """

    pieces: int
    kept_step: int | None
    sharded: bool


def train(
    model: torch.nn.Module, run: TrainingRun, start: checkpoints.Checkpoint | None
) -> TrainingEnd:
    """Train the model's trainable weights by the run's plan, from its start or a checkpoint.

    Watched by validation, it may end early, and the model has the best check's weights.
    """
    from transformers.utils import logging

    shown = logging.get_verbosity()
    try:
        sharded = processes.is_sharded()
        if sharded:
            processes.shard(model, decoder_layers(model)[1])
            os.environ.pop("ACCELERATE_USE_FSDP")  # it is done
        trainer = PackedTrainer(model, run)
        if sharded:
            trainer.accelerator.prepare_model = _as_it_is  # not as one copy of many
        trainer.remove_callback(PrinterCallback)
        model.train()
        if not trainer.judged.stop:
            trainer.train(resume_from_checkpoint=str(start.path) if start else None)
        kept = trainer.judged.best_step
        if kept is not None:
            on_cpu = trainer.args.device.type == "cpu"
            processes.barrier(on_cpu=on_cpu)  # the first has written it
            checkpoints.load_tensors(run.root / BEST, trainable(model))
            processes.barrier(on_cpu=on_cpu)  # all have read it
        return TrainingEnd(trainer.pieces, kept, sharded)
    finally:
        logging.set_verbosity(shown)


class PackedTrainer(Trainer):
    """Trains on a plan of packed batches and resumes to the bit."""

    loss_is_scaled_for_ga = True

    def __init__(self, model: torch.nn.Module, run: TrainingRun) -> None:
        self._run = run
        self._step = StepTally()
        self._history = list(run.history)
        self._of_step: list[dict[str, Any]] = []
        self.pieces = 1
        self._grad_norm = math.nan
        super().__init__(model=model, args=arguments(run, model), callbacks=[_Report(self)])
        # Without it the Trainer would not count the trained tokens of a whole step.
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches in the plan's order: all shuffling was done there."""
        data = PlannedBatches(self._run.plan, self._run.objective.weights)
        return DataLoader(data, batch_size=1, collate_fn=_only_item)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, in one fused call over all matrices."""
        self.optimizer: torch.optim.Optimizer | None
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                rate_groups(model or self.model, self._run.spec),
                weight_decay=0.0,  # a group's own, if it has one
                fused=True,
            )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The spec's; transformers' own make the first step at rate 0."""
        self.lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.create_optimizer(),
                lambda step: share_of_rate(step, num_training_steps, self._run.spec),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The batches of a step, of all of which an objective may have to know something."""
        found: tuple[list[Any], torch.Tensor | int | None] = super().get_batch_samples(
            epoch_iterator, num_batches, device
        )
        rows = [position for batch in found[0] for position in batch["rows"]]
        if rows:
            self._run.objective.prepare(self.model_wrapped, rows, self._run.ways)
        return found

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Forward and backward of one batch; the Trainer's own walks all modules first."""
        if num_items_in_batch is None:
            raise ValueError("only training steps, which know their trained tokens, are made here")
        self._of_step.append(inputs)
        count, todo = int(num_items_in_batch), [inputs]
        while True:
            try:
                for batch in todo:
                    loss = self._forward_and_back(model, batch, count)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
                # A pass that was cut short may have left a part of itself in the gradients.
                model.zero_grad(set_to_none=True)
                self._step.forget()
                todo = self._of_step
            else:
                return loss

    def _forward_and_back(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: int
    ) -> torch.Tensor:
        """One batch, in as many passes as memory wants; returns its share of the step's loss."""
        mine = processes.rank_share(inputs["rows"])
        # One without a row of its own goes along with another's, which counts nothing.
        weight = 1.0 if mine else 0.0
        total = torch.zeros((), device=self.args.device)
        parts = self._run.objective.losses(
            model, mine or inputs["rows"][:1], self.pieces, self._run.ways
        )
        for summed in parts:
            loss = summed * (weight / count)
            # Gradients are averaged over the processes, of which each has a part of the sum.
            self.accelerator.backward(loss * processes.count())
            total += loss.detach()
        total = self.accelerator.reduce(total, "sum")
        every = self._run.objective.parts
        rows = [row for position in inputs["rows"] for row in every[position]]
        self._step.add(total, rows, count, inputs["epoch"])
        return total

    def _halve(self, error: BaseException) -> None:
        """Let batches go through the model in twice as many pieces from now on.

        Raises:
            UserError: every row goes through by itself already.
        """
        if processes.count() > 1:
            raise MachineError(
                f"memory is used up in process {processes.rank()} of {processes.count()}",
                where="train.batch_tokens",
                fix="lower it, or activation_checkpointing: true; a single process halves batches",
            ) from error
        rows = max(len(batch["rows"]) for batch in self._of_step)
        if self.pieces >= rows:
            raise MachineError(
                "memory is used up by a single row of "
                f"{max(map(self._run.objective.tokens, self._of_step[-1]['rows']))} tokens",
                where="train",
                fix="activation_checkpointing: true, a quantised base, or shorter rows",
            ) from error
        self.pieces *= 2
        self._run.log(
            f"out of memory at step {self.state.global_step + 1}: batches go through the model in "
            f"{self.pieces} pieces from here on, with the same gradients"
        )

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clip, and stop before a step that would put NaN into the weights."""
        del model  # whose other parameters have no gradient and need not be walked
        most = self._run.spec.max_grad_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(list(self._trained.values()), most)
        self._grad_norm = float(processes.gather(norm))
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
            fix=f"lower train.learning_rate (now {self._run.spec.rate}), or look at these rows",
        )

    def report(self) -> None:
        """Tell the run's listener of the step that was just made; start the next one."""
        step = self._step.metrics(self.state.global_step, self._run.steps, self._grad_norm)
        self._of_step = []
        watched = self._run.validation
        if watched is not None and (step.step % watched.every == 0 or step.step == step.steps):
            step = self._checked(watched, step)
        self._history.append(step)
        if step.step == self.judged.best_step:
            checkpoints.write_tensors(self._run.root / BEST, self._trained)
        self._run.on_step(step)
        self._step = StepTally()

    @property
    def judged(self) -> WatchVerdict:
        """What the checks so far say of the run."""
        watched = self._run.validation
        return judge(self._history, watched.patience) if watched else WatchVerdict(None, stop=False)

    def _checked(self, watched: Validation, step: StepMetrics) -> StepMetrics:
        """Validate, in eval mode."""
        model: torch.nn.Module = self.model
        model.eval()
        loss = validation_loss(model, watched, self.pieces, self._run.ways)
        probe = watched.probe(model) if watched.probe else None
        model.train()
        return replace(step, validation_loss=loss, probe=probe)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at every step."""
        del inputs
        return 0

    @property
    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """By name; asked for anew, since sharding puts others in their places."""
        return trainable(self.model)

    def _training(self) -> checkpoints.TrainingState:
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # within accelerate's
        return checkpoints.TrainingState(self._trained, optimizer, self.lr_scheduler)

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


def _as_it_is(model: torch.nn.Module, **_: Any) -> torch.nn.Module:
    return model


def _read(path: str) -> checkpoints.Checkpoint:
    found = checkpoints.read_checkpoint(Path(path))
    if found is None:
        raise StoreError(f"the checkpoint {path} was damaged while it was being used")
    return found


class _Report(TrainerCallback):
    """Reports each step."""

    def __init__(self, trainer: PackedTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, state, kwargs
        self._trainer.report()
        if self._trainer.judged.stop:
            control.should_training_stop = True


def _only_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    return items[0]
