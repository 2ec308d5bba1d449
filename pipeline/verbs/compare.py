"""compare: the same rows by several methods, settings or bases, each a run of its own.

`train --compare` varies the method, `train --sweep KEY=…` a setting, the base or its dtype. Each
variant is trained, and measured against its own base on dev, like any other adapter.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.forget import forget
from pipeline.gap import gap
from pipeline.measure.measure import TunedModel
from pipeline.spec.train import METHODS, TrainSpec
from pipeline.train import train
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.forget import ForgetReport
    from pipeline.gap import GapReport
    from pipeline.spec.spec import Spec
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

_DTYPES: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "fp32", "quantize": None},
    "fp16": {"dtype": "fp16", "quantize": None},
    "bf16": {"dtype": "bf16", "quantize": None},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "nf4"},
    "nf4": {"quantize": "nf4"},
    "fp4": {"quantize": "fp4"},
}
# What decides which rows there are, or has no say in the outcome.
_NOT_SWEPT = ("method", "pool", "budget_rows", "replay", "allow_rejects", "checkpoint_steps")


@dataclass(frozen=True)
class Variant:
    """One way of training: `name` is what is varied, as it is shown."""

    name: str
    spec: Spec


@dataclass(frozen=True)
class VariantResult:
    """What one variant came to, on dev.

    Attributes:
        name: of the variant.
        method: by which it was trained.
        base: its base's name.
        adapter_id: what was trained.
        closed: capability -> share of the gap from the base's score to the goal that is closed.
        verdicts: capability or guard -> verdict.
        lost: items of capabilities and guards that the base got right and this gets wrong.
        gained: the other way round.
        forgotten: guards that were forgotten, beyond what the spec allows.
        trainable: how many numbers were trained.
        memory: bytes of the base's weights and of what training added at its peak.
        seconds: in steps.
        loss: mean over the last tenth of the steps.
    """

    name: str
    method: str
    base: str
    adapter_id: str
    closed: dict[str, float]
    verdicts: dict[str, str]
    lost: int
    gained: int
    forgotten: int
    trainable: int
    memory: int
    seconds: float
    loss: float

    @property
    def share(self) -> float:
        """Mean share of the gaps that is closed."""
        return sum(self.closed.values()) / max(1, len(self.closed))


@dataclass(frozen=True)
class FailedVariant:
    """A variant that could not be trained, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class CompareReport:
    """All variants, trained on one selection."""

    selection_id: str
    variants: tuple[VariantResult, ...]
    failed: tuple[FailedVariant, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "selection_id": self.selection_id,
            "variants": [asdict(one) | {"share": one.share} for one in self.variants],
            "failed": self.failed,
        }


def by_methods(spec: Spec, names: Sequence[str]) -> tuple[Variant, ...]:
    """Return a variant for each method.

    Raises:
        UserError: there is no such method, or the spec's objective is not for it.
    """
    found = []
    for name in names:
        if name not in METHODS:
            raise UserError(f"no method '{name}'", "--compare", ", ".join(METHODS))
        try:
            train_spec = TrainSpec.model_validate(spec.train.by(name).model_dump())
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(f"{name}: {said}", "--compare") from None
        found.append(Variant(name, spec.model_copy(update={"train": train_spec})))
    return tuple(found)


def by_setting(spec: Spec, sweep: str) -> tuple[Variant, ...]:
    """Return a variant for each value of `KEY=VALUE,VALUE,…`.

    `base` takes names of the spec; `dtype` makes the base again in it, quantised ones too
    (int8, int4 = nf4, fp4); every other key is one of `train:`.

    Raises:
        UserError: no such key, or not a value of it.
    """
    key, _, given = sweep.partition("=")
    values = [value.strip() for value in given.split(",") if value.strip()]
    if not values:
        raise UserError(f"'{sweep}' is no sweep", "--sweep", "KEY=VALUE,VALUE, as in rank=8,16,32")
    if key == "dtype":
        return tuple(_in_dtype(spec, value) for value in values)
    if key == "base":
        return tuple(_on_base(spec, value) for value in values)
    known = [name for name in TrainSpec.model_fields if name not in _NOT_SWEPT]
    if key not in known:
        raise UserError(f"'{key}' is not swept", "--sweep", ", ".join([*known, "base", "dtype"]))
    return tuple(_with(spec, key, value) for value in values)


def _with(spec: Spec, key: str, value: str) -> Variant:
    try:
        changed = TrainSpec.model_validate({**spec.train.model_dump(), key: value})
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise UserError(f"{key}={value}: {said}", "--sweep") from None
    return Variant(f"{key} {value}", spec.model_copy(update={"train": changed}))


def _on_base(spec: Spec, name: str) -> Variant:
    if name not in spec.bases:
        raise UserError(f"no base '{name}'", "--sweep", ", ".join(spec.bases))
    train_spec = spec.train.model_copy(update={"base": name})
    return Variant(name, spec.model_copy(update={"train": train_spec}))


def _in_dtype(spec: Spec, dtype: str) -> Variant:
    if dtype not in _DTYPES:
        raise UserError(f"no dtype '{dtype}'", "--sweep", ", ".join(_DTYPES))
    name = f"{spec.train.base}-{dtype}"
    base = spec.bases[spec.train.base].model_copy(update=_DTYPES[dtype])
    same = {"base": name, "dtype": base.dtype}  # not what this machine would take
    train_spec = spec.train.model_copy(update=same)
    bases = {**spec.bases, name: base}
    return Variant(dtype, spec.model_copy(update={"bases": bases, "train": train_spec}))


def compare(
    ws: OpenWorkspace, ui: Ui, selection_id: str, variants: Sequence[Variant]
) -> CompareReport:
    """Train each variant on the same selection and measure it.

    Raises:
        UserError: none of them could be trained.
    """
    done, failed = [], []
    for variant in variants:
        ui.log(f"{variant.name} …")
        try:
            done.append(_one(ws.with_spec(variant.spec), ui, selection_id, variant))
        except UserError as error:
            if len(variants) == 1:
                raise
            failed.append(FailedVariant(variant.name, str(error)))
    if not done:
        raise UserError(f"no variant could be trained; {failed[0].name}: {failed[0].why}")
    return CompareReport(selection_id, tuple(done), tuple(failed))


def _one(ws: OpenWorkspace, ui: Ui, selection_id: str, variant: Variant) -> VariantResult:
    found = gap(ws, ui)
    trained = train(ws, ui, selection_id)
    report = forget(ws, ui, TunedModel(trained.adapter_id))
    return VariantResult(
        name=variant.name,
        method=trained.method,
        base=ws.spec.train.base,
        adapter_id=trained.adapter_id,
        closed=shares(found, report),
        verdicts={
            **{name: one.verdict for name, one in report.closed.items()},
            **{one.guard: one.verdict for one in report.kept},
        },
        lost=sum(change.lost for change in report.changes.values()),
        gained=sum(change.gained for change in report.changes.values()),
        forgotten=sum(not one.passes for one in report.kept),
        trainable=trained.trainable,
        memory=trained.memory,
        seconds=trained.train_seconds,
        loss=trained.loss,
    )


def shares(found: GapReport, report: ForgetReport) -> dict[str, float]:
    """Return tuned capability -> (score after - base) / (goal - base); above 1 is beyond it."""
    before = {finding.capability: finding.base.mean for finding in found.findings}
    return {
        name: (one.score.mean - before[name]) / (one.goal - before[name])
        for name, one in report.closed.items()
        if one.goal != before[name]
    }


def why_lora(variants: Sequence[VariantResult]) -> str | None:
    """Return what the figures say of LoRA beside whole weights; None where one is missing."""
    by_method = {one.method: one for one in variants}
    lora, whole = by_method.get("lora"), by_method.get("full") or by_method.get("freeze")
    if lora is None or whole is None:
        return None
    return (
        f"lora closed {lora.share:.0%} of the gap and lost {lora.lost} items; {whole.method} "
        f"closed {whole.share:.0%} and lost {whole.lost}, with "
        f"{whole.trainable / lora.trainable:.0f} times "
        "the numbers. lora is the default because an adapter stays apart from its base: it is put "
        "on, taken off, scaled and merged, and many share one base in memory"
    )
