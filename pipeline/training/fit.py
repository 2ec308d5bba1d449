"""The fit: from a loaded base and rows to an adapter, through any number of interruptions."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.training.examples.encode import RejectedRow, TrainingRow
from pipeline.training.losses.objective import (
    ForwardMode,
    TrainingExample,
    encode,
    plan,
    plan_checks,
)
from pipeline.training.machine import processes
from pipeline.training.record.folder import CHECKPOINTS, METRICS
from pipeline.training.record.metrics import MetricsFile, StepMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from pipeline.spec.train import ComputeDtype, TrainSpec
    from pipeline.training.examples.encode import EncodedRow
    from pipeline.training.losses.objective import Objective
    from pipeline.training.record.watch import Validation
    from registry.models.load import LoadedModel

Probe: TypeAlias = "Callable[[torch.nn.Module], float]"

__all__ = ["FitResult", "StepMetrics", "TrainingRow", "fit"]

_ADAPTER = "adapter"
_DONE = "fit.json"


@dataclass(frozen=True, slots=True)
class FitResult:
    """A finished training.

    Attributes:
        adapter_dir: adapter_config.json and adapter_model.safetensors, in the workdir.
        steps: optimizer steps.
        tokens: that went through the model, over all epochs; none is padding.
        trained_tokens: those with a label.
        seconds: in steps, checkpoints included, over all processes that took part.
        losses: one entry a step, in order.
        resumed_from: the step that this call went on from; None if it began at the start.
        rejects: rows that this base could not be trained on.
        packed: whether rows shared a forward pass.
        note: why not, if they didn't.
        trainable: how many numbers were trained.
        memory: bytes of the base's weights and of what training added at its peak; the process
            that finished alone.
        pieces: in how many pieces batches went through the model at the end, for want of memory.
        kept_step: the step whose weights were kept, by validation; None for the last.
        shared: whether rows of one prompt went through the model with it once.
        processes: that took part in what finished it.
        sharded: whether each of them held a part of the weights alone.
        recomputed: whether activations were, to spare memory.
        learning_rate: the highest.
        dtype: that the frozen weights were computed in.
    """

    adapter_dir: Path
    steps: int
    tokens: int
    trained_tokens: int
    seconds: float
    losses: tuple[StepMetrics, ...]
    resumed_from: int | None
    rejects: tuple[RejectedRow, ...]
    packed: bool
    note: str | None
    trainable: int
    memory: int
    pieces: int
    kept_step: int | None
    shared: bool
    processes: int
    sharded: bool
    recomputed: bool
    learning_rate: float
    dtype: ComputeDtype


@dataclass(frozen=True)
class RunWatch:
    """What a run is watched by, beside what the spec says.

    Attributes:
        rows: that are not trained on.
        probe: gives the share of a few items that the model, as it is being trained, gets right.
    """

    rows: Sequence[TrainingExample]
    probe: Probe | None = None


def fit(
    loaded: LoadedModel,
    rows: Sequence[TrainingExample],
    spec: TrainSpec,
    workdir: Path,
    *,
    watch: RunWatch | None = None,
    on_step: Callable[[StepMetrics], None] | None = None,
    log: Callable[[str], None] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> FitResult:
    """Train LoRA modules, or its own weights, on a base, which is left as it was.

    Args:
        loaded: the base; an adapter in use is taken off.
        rows: what to train on, in an order that is part of the run.
        spec: how.
        workdir: a folder that survives kills. The same call in it goes on from the last
            checkpoint, and on CPU ends with the same bytes as an uninterrupted one.
        watch: what validation looks at, where the spec asks for it.
        on_step: is told of each step that this call makes.
        log: is told what a person should know.
        on_start: is told, before training, the first step that this call makes.

    Raises:
        UserError: rows that can't be trained on, an unknown target, a diverged loss, a full disk.
    """
    spec = spec.on_base(loaded.identity.width)
    encoded = encode(loaded, rows, spec, allow_rejects=spec.allow_rejects)
    plain = spec.model_copy(update={"kl": 0.0})  # a check is of the answers alone
    held = encode(loaded, watch.rows, plain, allow_rejects=1.0).objective if watch else None
    parts = [*encoded.objective.parts, *(held.parts if held else ())]
    fingerprint = _fingerprint(loaded, parts, spec)
    workdir.mkdir(parents=True, exist_ok=True)
    metrics = MetricsFile(workdir / METRICS)
    processes.barrier(on_cpu=loaded.device.type == "cpu")
    done = _read_done(workdir, fingerprint)
    if done is None:
        call = _FitCall(loaded, rows, encoded.objective, held, watch, spec, workdir, fingerprint)
        done = _train(call, metrics, on_step, log or _silent, on_start)
    processes.barrier(on_cpu=loaded.device.type == "cpu")
    losses = metrics.read()
    return FitResult(
        adapter_dir=workdir / _ADAPTER,
        steps=len(losses),
        tokens=sum(step.tokens for step in losses),
        trained_tokens=sum(step.trained_tokens for step in losses),
        seconds=sum(step.seconds for step in losses),
        losses=losses,
        resumed_from=done.resumed_from,
        rejects=encoded.rejects,
        packed=done.note is None,
        note=done.note,
        trainable=done.trainable,
        memory=done.memory,
        pieces=done.pieces,
        kept_step=done.kept_step,
        shared=done.shared,
        processes=done.processes,
        sharded=done.sharded,
        recomputed=done.recomputed,
        learning_rate=spec.rate,
        dtype=spec.dtype or loaded.identity.dtype,
    )


@dataclass(frozen=True, slots=True)
class _FitRecord:
    """What fit.json says: the run it is of, and what can't be read from elsewhere."""

    fingerprint: str
    resumed_from: int | None
    note: str | None
    trainable: int
    memory: int
    pieces: int
    kept_step: int | None
    shared: bool
    processes: int
    sharded: bool
    recomputed: bool


@dataclass(frozen=True)
class _FitCall:
    """What one call of `fit` trains."""

    loaded: LoadedModel
    rows: Sequence[TrainingExample]
    objective: Objective
    held: Objective | None
    watch: RunWatch | None
    spec: TrainSpec
    workdir: Path
    fingerprint: str


def _silent(_: str) -> None:
    pass


def _read_done(workdir: Path, fingerprint: str) -> _FitRecord | None:
    from pydantic import TypeAdapter

    try:
        done = TypeAdapter(_FitRecord).validate_json((workdir / _DONE).read_bytes())
    except (OSError, ValueError):
        return None
    return done if done.fingerprint == fingerprint else None


def _train(
    call: _FitCall,
    metrics: MetricsFile,
    on_step: Callable[[StepMetrics], None] | None,
    log: Callable[[str], None],
    on_start: Callable[[int], None] | None,
) -> _FitRecord:
    from registry.models.quiet import quiet_libraries
    from registry.store.disk import one_line_when_full

    with quiet_libraries():
        from pipeline.training import arguments, compute, trainer
        from pipeline.training.machine import memory
        from pipeline.training.methods import lora, methods
        from pipeline.training.preview.look import checked
        from pipeline.training.preview.recompute import with_recompute
        from pipeline.training.record import checkpoint

    loaded, spec, workdir = call.loaded, call.spec, call.workdir
    root = workdir / CHECKPOINTS
    start = checkpoint.last_checkpoint(root, call.fingerprint)
    loaded.use(None)
    with one_line_when_full(workdir), compute.computed_in(loaded, spec.dtype):
        note = compute.why_not_packed(loaded, _longest(call))
        share = note is None and compute.shares_prompts(loaded)
        laid = plan(call.objective, spec, share=share)
        spec = with_recompute(loaded, call.objective, laid, spec, share=share)
        if spec.activation_checkpointing and call.spec.activation_checkpointing is None:
            log("activations are recomputed: memory would not be enough to keep them")
        if start is None and processes.count() == 1:
            found = checked(loaded, call.rows, call.objective, laid, spec, share=share)
            for line in found.warnings:
                log(f"warning: {line}")
        if processes.is_first():
            metrics.begin(after=start.step if start else 0)
            if on_start is not None:
                on_start(start.step + 1 if start else 1)
        processes.barrier(on_cpu=loaded.device.type == "cpu")

        def report(step: StepMetrics) -> None:
            if not processes.is_first():
                return
            metrics.append(step)
            if on_step is not None:
                on_step(step)

        run = arguments.TrainingRun(
            spec=spec,
            objective=call.objective,
            plan=laid,
            ways=ForwardMode(packed=note is None, share=share),
            root=root,
            fingerprint=call.fingerprint,
            on_step=report,
            log=log,
            validation=_validation(call, share=share),
            history=metrics.read(),
        )
        with (
            memory.measure_memory(loaded.model, loaded.device) as used,
            memory.keep_freed_pages(),
            compute.seeded(spec.seed),
            compute.packing(loaded.model, wanted=note is None),
            # Two likelihoods are compared: each by other dropped units would be noise.
            compute.without_dropout(loaded.model, wanted=spec.objective != "sft" or spec.kl > 0),
            methods.trained_weights(loaded, spec) as trained,
        ):
            trainable = sum(p.numel() for p in lora.trainable(trained.model).values())
            run = replace(run, ways=replace(run.ways, reference=trained.reference))
            ended = trainer.train(trained.model, run, start)
            _publish(trained.save, workdir)
        first = start.step if start else None
        done = _FitRecord(
            fingerprint=call.fingerprint,
            resumed_from=first,
            note=note,
            trainable=trainable,
            memory=used.peak,
            pieces=ended.pieces,
            kept_step=ended.kept_step,
            shared=share,
            processes=processes.count(),
            sharded=ended.sharded,
            recomputed=bool(spec.activation_checkpointing),
        )
        if not processes.is_first():
            return done
        checkpoint.write_synced(workdir / f"{_DONE}.tmp", json.dumps(asdict(done)).encode())
        (workdir / f"{_DONE}.tmp").rename(workdir / _DONE)
    shutil.rmtree(root, ignore_errors=True)
    return done


def _longest(call: _FitCall) -> int:
    """Return the tokens of the longest row that goes through the model."""
    parts = [*call.objective.parts, *(call.held.parts if call.held else ())]
    return max(row.tokens for part in parts for row in part)


def _validation(call: _FitCall, *, share: bool) -> Validation | None:
    from pipeline.training.record.watch import Validation

    given = call.spec.validation
    if given is None or call.watch is None or call.held is None:
        return None
    batches = plan_checks(call.held, call.spec, share=share)
    return Validation(call.held, batches, given.every, given.patience, call.watch.probe)


def _publish(write: Callable[[Path], None], workdir: Path) -> None:
    """Write the adapter beside its place and rename it into it."""
    from registry.store.objects import sync_folder

    if not processes.is_first():
        with TemporaryDirectory() as scratch:
            write(Path(scratch))  # sharded weights are gathered by all
        return
    draft = workdir / f"{_ADAPTER}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(workdir / _ADAPTER, ignore_errors=True)
    draft.mkdir()
    write(draft)
    draft.rename(workdir / _ADAPTER)
    sync_folder(workdir)


def _fingerprint(
    loaded: LoadedModel, parts: Sequence[Sequence[EncodedRow]], spec: TrainSpec
) -> str:
    """Digest of everything that decides the adapter: base, rows, spec, torch."""
    import torch

    deciding: dict[str, Any] = {
        **spec.deciding(),
        "base": loaded.identity.digest,
        "torch": torch.__version__,
        "device": loaded.device.type,
    }
    sha = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode())
    for row in (row for part in parts for row in part):
        sha.update(len(row.input_ids).to_bytes(8, "little"))
        sha.update(row.input_ids.tobytes())
        sha.update(row.labels.tobytes())
        if spec.kl:
            sha.update(bytes([row.keeps]))
    return sha.hexdigest()
