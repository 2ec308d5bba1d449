"""train: from a selection to an adapter.

The run's folder keeps checkpoints, so a run that was killed goes on where it was; on CPU it ends
with the same bytes as one that was not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.selection import training_rows
from pipeline.stage import StageOutput, run_stage
from registry.store import Parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.stage import StageContext
    from pipeline.training.fit import FitResult
    from pipeline.training.metrics import StepMetrics
    from pipeline.ui import Ui
    from pipeline.workspace import Workspace
    from registry.store import ObjectRef

STAGE = "train"
VERSION = 2

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
    run_id: str
    cached: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def train(ws: Workspace, ui: Ui, selection_id: str) -> TrainReport:
    """Train an adapter on a selection.

    Raises:
        UserError: rows that can't be trained on, a target the base doesn't have, a diverged loss.
    """
    spec = ws.spec.train
    identity = ws.models.identity(spec.base)
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
        lambda ctx: _work(ws, ctx, selection_id),
        version=VERSION,
        parents=parents,
        config=spec.model_dump(mode="json"),
        seed=spec.seed,
    )
    result = outcome.result
    return TrainReport(
        adapter_id=outcome.outputs["adapter"],
        selection_id=selection_id,
        curve=tuple(CurvePoint(**point) for point in result["curve"]),
        run_id=outcome.run_id,
        cached=outcome.cached,
        seconds=outcome.seconds,
        **{key: value for key, value in result.items() if key not in {"curve", "refused"}},
    )


def _work(ws: Workspace, ctx: StageContext, selection_id: str) -> StageOutput:
    from pipeline.training.fit import fit

    spec = ws.spec.train
    rows = training_rows(ws, ctx.ui, selection_id)
    loaded = ws.models.get(spec.base)
    with ctx.ui.progress(f"train · {spec.base}") as bar:

        def show(step: StepMetrics) -> None:
            bar.update(step.step, step.steps)
            bar.note(f"loss {step.loss:.3f} · {step.tokens / step.seconds:,.0f} tokens/s")

        fitted = fit(loaded, rows, spec, ctx.workdir, on_step=show)
    if fitted.note is not None:
        ctx.ui.log(f"base '{spec.base}' trains one row a pass: {fitted.note}")
    result = _result(fitted, spec.base, spec.method, len(rows))
    return StageOutput(result, [("adapter", _publish(ws, ctx, selection_id, fitted, result))])


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
    ws: Workspace, ctx: StageContext, selection_id: str, fitted: FitResult, result: dict[str, Any]
) -> ObjectRef:
    from registry.adapters import publish
    from registry.changed import publish_changed

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
            "round": ws.catalog.manifest(selection_id)["meta"].get("round", 0),
            "seed": spec.seed,
        },
        parents=[Parent(ctx.run_id, "run"), Parent(selection_id, "selection")],
    )
