"""promote: score test once, base and adapter on the same items, and let the gates decide.

Every tuned gap must be closed, and every guard, and capability that needed no tuning, kept or its
loss accepted. An adapter that dev already speaks against is refused without a look at test. The
decision is recorded either way; `champion` moves only if every gate says yes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evals.verdicts.forgetting import GuardFinding, SubjectChange  # noqa: TC001 - read when a report is read back
from evals.verdicts.gap import ClosedFinding  # noqa: TC001 - likewise
from pipeline.forget import Judgement, check_base, forget, judge
from pipeline.gap import dev_inputs, gap
from pipeline.ingest import resolve
from pipeline.measure.gates import Gate, gates, refusals
from pipeline.measure.measure import TunedModel
from pipeline.spec.subjects import measured_datasets
from pipeline.workspace.stage import StageOutput, run_stage
from pipeline.workspace.store import CHAMPION
from registry.store.kinds import ForgettingMeta, PromotionMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.forget import ForgetReport
    from pipeline.gap import GapReport
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

STAGE = "promote"
VERSION = 3


@dataclass(frozen=True)
class PromoteReport:
    """The decision on one adapter, with the figures that it rests on.

    Attributes:
        split: what they were measured on: `test`, or `dev` where that was enough to refuse.
        looks: how many adapters have been scored on these test sets, this one included; the more,
            the less a score on them proves. 0 where test was not looked at.
        previous: the champion that was replaced, if any.
    """

    adapter_id: str
    promoted: bool
    split: str
    gates: tuple[Gate, ...]
    reasons: tuple[str, ...]
    kept: tuple[GuardFinding, ...]
    closed: dict[str, ClosedFinding]
    changes: dict[str, SubjectChange]
    looks: int
    previous: str | None
    promotion_id: str
    run_id: str
    cached: bool
    seconds: float


def promote(ws: OpenWorkspace, ui: Ui, adapter_id: str) -> PromoteReport:
    """Decide on an adapter by its figures on test, and make it the champion if they allow.

    Raises:
        UserError: the adapter is of another base than `train.base`.
    """
    from registry.models.adapters import move_alias

    resolved = resolve(ws, ui, measured_datasets(ws.spec))
    found = gap(resolved, ui)
    check_base(ws, found.base, adapter_id)
    dev = forget(resolved, ui, TunedModel(adapter_id))
    inputs, parents = dev_inputs(resolved, found.base)
    tests = _versions(inputs)
    inputs |= {"adapter": adapter_id, "gap": found.gap_id, "dev": dev.forgetting_id}
    parents += [
        Parent(adapter_id, "adapter"),
        Parent(found.gap_id, "gap"),
        Parent(dev.forgetting_id, "forgetting"),
    ]
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: _judge_on_test(resolved, ctx, found, dev, tests, parents),
        version=VERSION,
        parents=parents,
    )
    previous = ws.catalog.alias(CHAMPION)
    if outcome.result["promoted"] and previous != adapter_id and not ws.dry:
        reason = f"promotion {outcome.outputs['promotion'][:12]}"
        move_alias(ws.store, ws.catalog, CHAMPION, adapter_id, expect=previous, reason=reason)
    return outcome.report(
        PromoteReport,
        adapter_id=adapter_id,
        previous=previous if previous != adapter_id else None,
        promotion_id=outcome.outputs["promotion"],
    )


def _judge_on_test(
    ws: Resolved,
    ctx: StageContext,
    found: GapReport,
    dev: ForgetReport,
    tests: Mapping[str, str],
    parents: list[Parent],
) -> StageOutput:
    judged, split, looks = Judgement(dev.kept, dev.closed, dev.changes, ()), "dev", 0
    if not refusals(_gates(judged, "dev")):
        judged = judge(ws, ctx.ui, found, TunedModel(dev.adapter_id), "test")
        split, looks = "test", _looks(ws, tests, dev.adapter_id)
    decided = _gates(judged, split)
    figures = {
        "adapter": dev.adapter_id,
        "scale": 1.0,
        "split": split,
        "kept": [asdict(finding) for finding in judged.kept],
        "closed": {name: asdict(finding) for name, finding in judged.closed.items()},
        "changes": {name: asdict(change) for name, change in judged.changes.items()},
    }
    result = {
        **figures,
        "base": found.base,
        "adapter_id": dev.adapter_id,
        "promoted": not refusals(decided),
        "gates": [asdict(gate) for gate in decided],
        "reasons": list(refusals(decided)),
        "looks": looks,
        "tests": dict(tests),
    }
    parts = [Parent(ctx.run_id, "run"), *parents]
    parts += [Parent(eval_id, "eval") for eval_id in judged.evals]
    identity = {"run": ctx.run_id}
    made = [
        (
            "promotion",
            ws.store.put(
                "promotion",
                None,
                identity=identity,
                parents=parts,
                meta=PromotionMeta.model_validate(result),
            ),
        )
    ]
    if split == "test":  # asked in SQL like what was measured on dev
        made.append(
            (
                "forgetting",
                ws.store.put(
                    "forgetting",
                    None,
                    identity=identity,
                    parents=parts,
                    meta=ForgettingMeta.model_validate(figures),
                ),
            )
        )
    return StageOutput(result, made)


def _gates(judged: Judgement, split: str) -> tuple[Gate, ...]:
    return gates(judged.closed, {finding.guard: finding for finding in judged.kept}, split)


def _versions(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return subject -> dataset version, for those that have one."""
    described = inputs["subjects"].items()
    return {name: d["dataset_version"] for name, d in described if d["dataset_version"]}


def _looks(ws: OpenWorkspace, tests: Mapping[str, str], adapter_id: str) -> int:
    """Count the adapters that were scored on any of these test sets, with this one."""
    earlier = {
        one.meta.adapter_id
        for one in ws.catalog.committed(PromotionMeta, split="test")
        if set(one.meta.tests.values()) & set(tests.values())
    }
    return len(earlier | {adapter_id})
