"""promote: score test once, base and adapter on the same items, and let the gates decide.

Every tuned gap must be closed, and every guard, and capability that needed no tuning, kept or its
loss accepted. An adapter that dev already speaks against is refused without a look at test. The
decision is recorded either way; `champion` moves only if every gate says yes.

The decision holds the goals that stood when test was looked at. Every look at a test set after the
first, whether by another adapter or with a goal moved, is judged more strictly and told as such.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evals.verdicts.forgetting import GuardFinding, SubjectChange  # noqa: TC001 - read when a report is read back
from evals.verdicts.gap import ClosedFinding  # noqa: TC001 - likewise
from evals.verdicts.looks import level_at
from pipeline.forget import Judgement, check_base, forget, judge
from pipeline.gap import dev_inputs, gap
from pipeline.ingest import resolve
from pipeline.measure.gates import Gate, gates, refusals
from pipeline.measure.looks import EarlierLook, Looks, MovedGoal, looks_at, terms_of
from pipeline.measure.measure import TunedModel
from pipeline.measure.settle import how_to_settle, supply_of
from pipeline.spec.subjects import measured_datasets
from pipeline.workspace.stage import StageOutput, run_stage
from pipeline.workspace.store import CHAMPION
from registry.store.hashing import digest
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
VERSION = 4


@dataclass(frozen=True)
class PromoteReport:
    """The decision on one adapter, with the figures that it rests on.

    Attributes:
        split: what they were measured on: `test`, or `dev` where that was enough to refuse.
        looks: how often these test sets have been looked at, this time included; the more, the
            less a score on them proves. 0 where test was not looked at.
        alpha: what an interval may err by at this look; half of the look before.
        goals: what stood when this was decided: goal and margin, or max_drop and accept.
        moved: which of them were otherwise at an earlier look.
        earlier: those looks, and what came of them.
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
    alpha: float | None
    goals: dict[str, dict[str, bool | float]]
    moved: tuple[MovedGoal, ...]
    earlier: tuple[EarlierLook, ...]
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
    inputs |= {"adapter": adapter_id}
    asked = digest(inputs)
    inputs |= {"gap": found.gap_id, "dev": dev.forgetting_id}
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
        lambda ctx: _judge_on_test(resolved, ctx, found, dev, tests, asked, parents),
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
    asked: str,
    parents: list[Parent],
) -> StageOutput:
    judged, split, looks = Judgement(dev.kept, dev.closed, dev.changes, ()), "dev", Looks(0, (), ())
    if not refusals(_gates(ws, judged, "dev")):
        split, looks = "test", looks_at(ws.catalog, terms_of(ws.spec), tests, asked)
        what = TunedModel(dev.adapter_id)
        judged = judge(ws, ctx.ui, found, what, "test", look=looks.number)
    decided = _gates(ws, judged, split)
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
        "looks": looks.number,
        "asked": asked,
        "alpha": level_at(looks.number).interval if looks.number else None,
        "goals": terms_of(ws.spec),
        "moved": [asdict(one) | {"said": str(one)} for one in looks.moved],
        "earlier": [asdict(one) for one in looks.earlier],
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


def _gates(ws: Resolved, judged: Judgement, split: str) -> tuple[Gate, ...]:
    keeping = {finding.guard: finding for finding in judged.kept}
    unsettled = {
        name: how_to_settle(supply_of(ws, name, split, n), items)
        for name, verdict, n, items in (
            *((name, f.verdict, f.score.n, f.items_to_settle) for name, f in judged.closed.items()),
            *((name, f.verdict, f.n, f.items_to_settle) for name, f in keeping.items()),
        )
        if verdict == "inconclusive"
    }
    return gates(judged.closed, keeping, split, unsettled)


def _versions(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return subject -> dataset version, for those that have one."""
    described = inputs["subjects"].items()
    return {name: d["dataset_version"] for name, d in described if d["dataset_version"]}
