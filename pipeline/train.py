"""train: from a selection to an adapter.

The run's folder keeps checkpoints, so a run that was killed goes on where it was; on CPU it ends
with the same bytes as one that was not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.ingest import resolve
from pipeline.selection.held_out import refuse_leaks
from pipeline.selection.validation import training_set
from pipeline.workspace.stage import StageOutput, run_stage
from registry.store.kinds import SelectionMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.spec.train import TrainSpec
    from pipeline.training.fit import FitResult
    from pipeline.training.preview.dry_run import DryRun
    from pipeline.training.record.metrics import StepMetrics
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.models.base import BaseIdentity
    from registry.store.objects import ObjectRef

STAGE = "train"
VERSION = 4

_CURVE_POINTS = 100


@dataclass(frozen=True)
class CurvePoint:
    """Mean loss of the trained tokens of some neighbouring steps, at the last of them."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class TrainReport:
    """What was trained.

    Attributes:
        adapter_id: the adapter.
        selection_id: the rows it was trained on.
        base: the base's name in the spec.
        method: how.
        rows: trained on.
        rejects: refused by this base's template or context.
        steps: optimizer steps.
        tokens: that went through the model; none is padding.
        trained_tokens: those with a label.
        train_seconds: in steps, over all processes that took part.
        tokens_per_second: tokens in a second of steps.
        loss: mean over the last tenth of the steps.
        curve: the loss on the way, at most 100 points.
        resumed_from: the step that the finishing process went on from, or None.
        packed: whether rows shared a forward pass; `note` says why not.
        note: see packed.
        trainable: how many numbers were trained.
        memory: bytes of the base's weights and of what training added at its peak.
        pieces: in how many pieces batches went through the model at the end, for want of memory.
        kept_step: the step whose weights validation kept; None for the last.
        processes: that trained together.
        sharded: whether each of them held a part of the weights alone (FSDP).
        recomputed: whether activations were, to spare memory.
        learning_rate: the highest.
        dtype: that the frozen weights were computed in.
        run_id: the run.
        cached: whether it had been done before.
        seconds: that the stage took.
    """

    adapter_id: str
    selection_id: str
    base: str
    method: str
    rows: int
    rejects: int
    steps: int
    tokens: int
    trained_tokens: int
    train_seconds: float
    tokens_per_second: float
    loss: float
    curve: tuple[CurvePoint, ...]
    resumed_from: int | None
    packed: bool
    note: str | None
    trainable: int
    memory: int
    pieces: int
    kept_step: int | None
    processes: int
    sharded: bool
    recomputed: bool
    learning_rate: float
    dtype: str
    run_id: str
    cached: bool
    seconds: float


def train(ws: OpenWorkspace, ui: Ui, selection_id: str) -> TrainReport:
    """Train an adapter on a selection.

    Raises:
        UserError: rows that can't be trained on or are in a dev or test set, a target the base
            doesn't have, a diverged loss.
    """
    identity = ws.models.identity(ws.spec.train.base)
    spec = _settled(ws, identity)
    parents = [Parent(selection_id, "selection")]
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        {
            "base": identity.digest,
            "selection": selection_id,
            "train": spec.deciding(),
        },
        lambda ctx: _train_adapter(resolve(ws, ctx.ui), ctx, selection_id, spec),
        version=VERSION,
        parents=parents,
        config=spec.model_dump(mode="json"),
        seed=spec.seed,
    )
    if outcome.cached:
        _dismiss()
    adapter = outcome.outputs["adapter"]
    return outcome.report(TrainReport, adapter_id=adapter, selection_id=selection_id)


def _settled(ws: OpenWorkspace, identity: BaseIdentity) -> TrainSpec:
    """Return the spec with what this base and this machine decide written out."""
    from pipeline.training.machine.dtype import training_dtype

    given = ws.spec.train
    spec = given.on_base(identity.width)
    quantised = ws.spec.bases[given.base].quantize is not None
    dtype = given.dtype or training_dtype(identity, quantised=quantised)
    return spec.model_copy(update={"dtype": dtype})


def _dismiss() -> None:
    """Let the other processes of a launch go: there is nothing to do."""
    from pipeline.training.machine import processes

    if processes.count() > 1:
        processes.broadcast(None, on_cpu=_on_cpu())


def dry(ws: OpenWorkspace, ui: Ui, selection_id: str) -> DryRun:
    """Return what a training would be: three of its rows, its size, and what it would take.

    Raises:
        UserError: what would stop it before its first step.
    """
    from pipeline.training.preview.look import look

    spec = _settled(ws, ws.models.identity(ws.spec.train.base))
    resolved = resolve(ws, ui)
    refuse_leaks(resolved, selection_id)
    return look(ws.models.get(spec.base), training_set(resolved, ui, selection_id).rows, spec)


def follow(ws: OpenWorkspace, ui: Ui) -> None:
    """Take part in the run that the first process of a launch records; nothing is written here.

    Raises:
        UserError: as `train`.
    """
    from pipeline.training.fit import fit
    from pipeline.training.machine import processes

    told = processes.broadcast(None, on_cpu=_on_cpu())
    if told is None:
        return  # it had been done before
    given = training_set(resolve(ws, ui), ui, told["selection"])
    loaded = ws.models.get(ws.spec.train.base)
    spec = ws.spec.train.model_copy(update={"dtype": told["dtype"]})
    fit(loaded, given.rows, spec, Path(told["workdir"]), watch=given.watch)


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def _train_adapter(
    ws: Resolved, ctx: StageContext, selection_id: str, spec: TrainSpec
) -> StageOutput:
    from pipeline.training.fit import fit
    from pipeline.training.machine import processes
    from pipeline.training.machine.dtype import slow_choices
    from pipeline.training.record.run_metrics import measured_steps, put_metrics, step_values
    from pipeline.training.record.trackers import open_trackers

    refuse_leaks(ws, selection_id)
    own = {spec.base: ws.spec.bases[spec.base]}
    for line in slow_choices(own, ws.spec.train, ws.root):
        ctx.ui.log(f"warning: {line}")
    given = training_set(ws, ctx.ui, selection_id)
    loaded = ws.models.get(spec.base)
    if processes.count() > 1:
        workdir = str(ctx.workdir.resolve())
        message = {"selection": selection_id, "workdir": workdir, "dtype": spec.dtype}
        processes.broadcast(message, on_cpu=_on_cpu())
    with (
        ctx.ui.progress(f"train · {spec.base}") as bar,
        open_trackers(
            spec.trackers,
            ws.state / "trackers",
            f"train-{ctx.run_id[:16]}",
            spec.model_dump(mode="json") | {"selection": selection_id},
            say=ctx.ui.log,
        ) as trackers,
    ):

        def show(step: StepMetrics) -> None:
            bar.update(step.step, step.steps)
            checked = step.validation_loss
            note = "" if checked is None else f" · validation {checked:.3f}"
            bar.note(f"loss {step.loss:.3f}{note} · {step.tokens / step.seconds:,.0f} tokens/s")
            trackers.log(step.step, step_values(step))

        fitted = fit(
            loaded,
            given.rows,
            spec,
            ctx.workdir,
            watch=given.watch,
            on_start=trackers.begin,
            on_step=show,
            log=ctx.ui.log,
        )
    if fitted.note is not None:
        ctx.ui.log(f"base '{spec.base}' trains one row a pass: {fitted.note}")
    result = _result(fitted, spec.base, spec.method, len(given.rows))
    adapter = _publish(ws, ctx, selection_id, fitted, result)
    figures = put_metrics(ws.store, measured_steps(fitted.losses), run_id=ctx.run_id)
    return StageOutput(result, [("adapter", adapter), ("metrics", figures)])


def _result(fitted: FitResult, base: str, method: str, rows: int) -> dict[str, Any]:
    tail = fitted.losses[-max(1, len(fitted.losses) // 10) :]
    return {
        "base": base,
        "method": method,
        "rows": rows - len(fitted.rejects),
        "rejects": len(fitted.rejects),
        "refused": [asdict(reject) for reject in fitted.rejects],
        "steps": fitted.steps,
        "tokens": fitted.tokens,
        "trained_tokens": fitted.trained_tokens,
        "train_seconds": round(fitted.seconds, 3),
        "tokens_per_second": round(fitted.tokens / fitted.seconds, 1),
        "loss": _mean_loss(tail),
        "curve": [asdict(point) for point in _curve(fitted.losses)],
        "resumed_from": fitted.resumed_from,
        "packed": fitted.packed,
        "note": fitted.note,
        "trainable": fitted.trainable,
        "memory": fitted.memory,
        "pieces": fitted.pieces,
        "kept_step": fitted.kept_step,
        "processes": fitted.processes,
        "sharded": fitted.sharded,
        "recomputed": fitted.recomputed,
        "learning_rate": fitted.learning_rate,
        "dtype": fitted.dtype,
    }


def _curve(losses: Sequence[StepMetrics]) -> list[CurvePoint]:
    """At most 100 points, each the mean over the steps since the last."""
    width = -(-len(losses) // _CURVE_POINTS)
    parts = [losses[begin : begin + width] for begin in range(0, len(losses), width)]
    return [CurvePoint(p[-1].step, _mean_loss(p), p[-1].learning_rate) for p in parts]


def _mean_loss(steps: Sequence[StepMetrics]) -> float:
    total = sum(step.loss * step.trained_tokens for step in steps)
    return total / sum(step.trained_tokens for step in steps)


def _publish(
    ws: OpenWorkspace,
    ctx: StageContext,
    selection_id: str,
    fitted: FitResult,
    result: dict[str, Any],
) -> ObjectRef:
    from registry.models.adapters import publish
    from registry.models.changed import publish_changed

    spec = ws.spec.train
    facts = ("method", "rows", "steps", "tokens", "trained_tokens", "loss")
    put = publish if spec.is_lora else publish_changed
    return put(
        ws.store,
        fitted.adapter_dir,
        base=ws.models.identity(spec.base),
        tokenizer=ws.models.get(spec.base).tokenizer,
        meta={
            **{key: result[key] for key in facts},
            "alpha": spec.lora_alpha if spec.is_lora else None,
            "seconds": result["train_seconds"],
            "round": ws.catalog.manifest(selection_id, SelectionMeta).meta.round,
            "seed": spec.seed,
        },
        parents=[Parent(ctx.run_id, "run"), Parent(selection_id, "selection")],
    )
