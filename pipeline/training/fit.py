"""From a loaded base and rows to an adapter, through any number of interruptions."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.training.encode import Reject, TrainingRow, encode_rows
from pipeline.training.metrics import MetricsFile, StepMetrics
from pipeline.training.packing import plan_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pipeline.training.encode import EncodedRow
    from pipeline.training.spec import TrainSpec
    from registry.models import LoadedModel

__all__ = ["FitResult", "StepMetrics", "TrainingRow", "fit"]

_ADAPTER = "adapter"
_CHECKPOINTS = "checkpoints"
_METRICS = "metrics.jsonl"
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
    """

    adapter_dir: Path
    steps: int
    tokens: int
    trained_tokens: int
    seconds: float
    losses: tuple[StepMetrics, ...]
    resumed_from: int | None
    rejects: tuple[Reject, ...]
    packed: bool
    note: str | None


def fit(
    loaded: LoadedModel,
    rows: Sequence[TrainingRow],
    spec: TrainSpec,
    workdir: Path,
    *,
    on_step: Callable[[StepMetrics], None] | None = None,
) -> FitResult:
    """Train LoRA modules on a base, which is left as it was.

    Args:
        loaded: the base; an adapter in use is taken off.
        rows: what to learn from, in an order that is part of the run.
        spec: how.
        workdir: a folder that survives kills. The same call in it goes on from the last
            checkpoint, and on CPU ends with the same bytes as an uninterrupted one.
        on_step: is told of each step that this call makes.

    Raises:
        UserError: rows that can't be trained on, an unknown target, a diverged loss, a full disk.
    """
    encoded = encode_rows(loaded, rows, allow_rejects=spec.allow_rejects)
    fingerprint = _fingerprint(loaded, encoded.rows, spec)
    workdir.mkdir(parents=True, exist_ok=True)
    metrics = MetricsFile(workdir / _METRICS)
    done = _read_done(workdir, fingerprint)
    if done is None:
        done = _train(loaded, encoded.rows, spec, workdir, fingerprint, metrics, on_step)
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
    )


@dataclass(frozen=True, slots=True)
class _Done:
    """What fit.json says: the run it is of, and what can't be read from elsewhere."""

    fingerprint: str
    resumed_from: int | None
    note: str | None


def _read_done(workdir: Path, fingerprint: str) -> _Done | None:
    try:
        done = _Done(**json.loads((workdir / _DONE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return done if done.fingerprint == fingerprint else None


def _train(
    loaded: LoadedModel,
    rows: Sequence[EncodedRow],
    spec: TrainSpec,
    workdir: Path,
    fingerprint: str,
    metrics: MetricsFile,
    on_step: Callable[[StepMetrics], None] | None,
) -> _Done:
    from registry.diskfull import one_line_when_full
    from registry.quiet import quiet_libraries

    with quiet_libraries():
        from pipeline.training import checkpoint, compute, lora, trainer

    root = workdir / _CHECKPOINTS
    start = checkpoint.last_checkpoint(root, fingerprint)
    lengths = [row.tokens for row in rows]
    plan = plan_batches(lengths, epochs=spec.epochs, seed=spec.seed, budget=spec.batch_tokens)
    loaded.use(None)
    with one_line_when_full(workdir), compute.computed_in(loaded, spec.dtype):
        note = compute.why_not_packed(loaded)
        metrics.begin(after=start.step if start else 0)

        def report(step: StepMetrics) -> None:
            metrics.append(step)
            if on_step is not None:
                on_step(step)

        run = trainer.Run(spec, rows, plan, note is None, root, fingerprint, report)
        with (
            compute.seeded(spec.seed),
            compute.packing(loaded.model, wanted=note is None),
            lora.lora_modules(loaded, spec) as model,
        ):
            trainer.train(model, run, start)
            _publish(lambda draft: lora.save_adapter(model, draft), workdir)
        done = _Done(fingerprint, start.step if start else None, note)
        checkpoint.write_synced(workdir / f"{_DONE}.tmp", json.dumps(asdict(done)).encode())
        (workdir / f"{_DONE}.tmp").rename(workdir / _DONE)
    shutil.rmtree(root, ignore_errors=True)
    return done


def _publish(write: Callable[[Path], None], workdir: Path) -> None:
    """Write the adapter beside its place and rename it into it."""
    from registry.store import sync_folder

    draft = workdir / f"{_ADAPTER}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(workdir / _ADAPTER, ignore_errors=True)
    draft.mkdir()
    write(draft)
    draft.rename(workdir / _ADAPTER)
    sync_folder(workdir)


def _fingerprint(loaded: LoadedModel, rows: Sequence[EncodedRow], spec: TrainSpec) -> str:
    """Digest of everything that decides the adapter: base, rows, spec, torch."""
    import torch

    deciding: dict[str, Any] = {
        **spec.deciding(),
        "base": loaded.identity.digest,
        "torch": torch.__version__,
        "device": loaded.device.type,
    }
    sha = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode())
    for row in rows:
        sha.update(len(row.input_ids).to_bytes(8, "little"))
        sha.update(row.input_ids.tobytes())
        sha.update(row.labels.tobytes())
    return sha.hexdigest()
