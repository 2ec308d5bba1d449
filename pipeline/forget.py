"""forget: measure, item by item, what an adapter made the base forget, and what it closed.

Guards, and capabilities that were met without training, are compared with the base on the same
dev items. Capabilities that were tuned are judged against their goal. Two adapters are compared in
the same way, one in the place of the base.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from evals.scoring.results import chance_of, paired, scores_of
from evals.verdicts.forgetting import (
    GuardFinding,
    PairedScores,
    SubjectChange,
    change_of,
    judge_guards,
)
from evals.verdicts.gap import ClosedFinding, judge_closed
from evals.verdicts.looks import DEV, level_at
from pipeline.gap import dev_inputs, gap
from pipeline.ingest import resolve
from pipeline.measure.changes import divergence_of, reprompted
from pipeline.measure.measure import TunedModel, items_of, measure
from pipeline.spec.subjects import Subject, measured_datasets, subjects
from pipeline.workspace.stage import StageOutput, run_stage
from pipeline.workspace.store import adapter_named
from registry.errors import ModelError, SpecError
from registry.store.kinds import ForgettingMeta, WeightsMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from evals.scoring.evaluate import EvalResult
    from evals.verdicts.stats import PairedItems
    from pipeline.gap import GapReport
    from pipeline.spec.subjects import Split
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

STAGE = "forget"
VERSION = 5

MET_MAX_DROP = 0.03
"""The largest drop of a capability that the base met: it is guarded though no guard names it."""


@dataclass(frozen=True)
class ForgetReport:
    """What an adapter lost, kept and closed, on one split.

    Attributes:
        adapter_id: the adapter; empty where another base was compared.
        model: that base's name in the spec, if it was one.
        scale: what its deltas are multiplied by.
        against: the adapter that it is compared with, None for the base.
        split: what was scored.
        kept: the verdicts on guards, and on capabilities that were met.
        closed: tuned capability -> verdict.
        changes: everything that was compared -> what changed, with KL and what came back.
        forgetting_id: the object that holds it.
        run_id: the run that made it.
        cached: it was made before.
        seconds: what it took.
    """

    adapter_id: str
    model: str | None
    scale: float
    against: str | None
    split: str
    kept: tuple[GuardFinding, ...]
    closed: dict[str, ClosedFinding]
    changes: dict[str, SubjectChange]
    forgetting_id: str
    run_id: str
    cached: bool
    seconds: float


@dataclass(frozen=True)
class ChangedItem:
    """An item whose score changed with the adapter, with what was answered before and after."""

    guard: str
    row_uid: int
    prompt: str
    expected: str
    before: str
    after: str


@dataclass(frozen=True)
class Judgement:
    """The verdicts on one adapter, what changed, and the evaluations that both rest on."""

    kept: tuple[GuardFinding, ...]
    closed: dict[str, ClosedFinding]
    changes: dict[str, SubjectChange]
    evals: tuple[str, ...]


def forget(
    ws: OpenWorkspace, ui: Ui, what: TunedModel, against: TunedModel | None = None
) -> ForgetReport:
    """Compare an adapter on dev with its base, or with another adapter; or another base with it."""
    resolved = resolve(ws, ui, measured_datasets(ws.spec))
    found = gap(resolved, ui)
    for one in (what, against):
        if one is not None and one.base is None:
            check_base(ws, found.base, one.adapter_id)
    inputs, parents = dev_inputs(resolved, found.base)
    inputs |= {"gap": found.gap_id, "adapter": what.adapter_id, "scale": what.scale}
    if unseen := ws.spec.witnesses:
        inputs["witnesses"] = sorted(unseen)
    if found.untaught:  # the pool decides it, which the gap's key doesn't know
        inputs["untaught"] = sorted(found.untaught)
    parents.append(Parent(found.gap_id, "gap"))
    if what.base is None:
        parents.append(Parent(what.adapter_id, "adapter"))
    else:
        inputs |= {"model": ws.models.identity(what.base).digest}
    if against is not None:
        inputs |= {"against": against.adapter_id}
        parents.append(Parent(against.adapter_id, "against"))
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: _judge_adapter(resolved, ctx, found, what, against, parents),
        version=VERSION,
        parents=parents,
    )
    return outcome.report(
        ForgetReport,
        adapter_id=what.adapter_id,
        model=what.base,
        scale=what.scale,
        against=against.adapter_id if against else None,
        split="dev",
        forgetting_id=outcome.outputs["forgetting"],
    )


def changed_items(
    ws: OpenWorkspace, ui: Ui, report: ForgetReport, which: Literal["lost", "gained"]
) -> tuple[ChangedItem, ...]:
    """Return the items that were lost (or gained) of everything compared, with both answers.

    Reads what `forget` measured; nothing is scored again.
    """
    resolved = resolve(ws, ui, measured_datasets(ws.spec))
    base, what = gap(resolved, ui).base, TunedModel(report.adapter_id, report.scale, report.model)
    earlier = TunedModel(report.against) if report.against else None
    sign = -1 if which == "lost" else 1
    found: list[ChangedItem] = []
    for one in subjects(ws.spec):
        if one.name not in report.changes:
            continue
        items = items_of(resolved, one, "dev")
        before = measure(resolved, ui, one, base=base, items=items, split="dev", tuned=earlier)
        after = measure(resolved, ui, one, base=base, items=items, split="dev", tuned=what)
        later = {sample.row_uid: sample for sample in after.samples}
        found += [
            ChangedItem(one.name, s.row_uid, s.prompt, s.expected, s.answer, now.answer)
            for s in before.samples
            if sign * ((now := later[s.row_uid]).score - s.score) > 0
        ]
    return tuple(found)


def tuned(ws: OpenWorkspace, name: str | None) -> TunedModel:
    """Return the adapter that an id, a prefix of one or an alias names; by default the newest.

    Raises:
        UserError: there is none of that name, none at all, or it was set aside.
    """
    return TunedModel(adapter_named(ws, name))


def other_base(ws: OpenWorkspace, name: str) -> TunedModel:
    """Return a base of the spec, such as a merged model, to be compared with `train.base`.

    Raises:
        UserError: there is none of that name, or it is `train.base` itself.
    """
    others = [one for one in ws.spec.bases if one != ws.spec.train.base]
    if name not in others:
        raise SpecError(
            f"'{name}' is no base to compare with '{ws.spec.train.base}'",
            where="bases",
            expected=f"one of {', '.join(others)}" if others else "another base in the spec",
            fix="a merged model is one with {model: merged:ID}",
        )
    return TunedModel("", base=name)


def judge(
    ws: Resolved,
    ui: Ui,
    found: GapReport,
    what: TunedModel,
    split: Split,
    *,
    against: TunedModel | None = None,
    only: Collection[str] | None = None,
    look: int | None = None,
) -> Judgement:
    """Score base (or `against`) and adapter on the same items of `split` and judge both sides.

    Tuned capabilities are judged by their goal; guards, and capabilities that the base met by
    itself, by what was lost. One that a prompt reaches is served by the base with that prompt,
    the adapter switched off; who wants it kept under the adapter names it as a guard. One that no
    row teaches is measured, and not judged. `only` limits it to the subjects named. `look` counts
    the looks at this test set, this one included: the verdicts may err by less each time.
    """
    _measure_in_turn(ws, ui, found, what, split)
    level, later = (DEV, DEV) if look is None else (level_at(look), level_at(look + 1))
    unseen = ws.spec.witnesses
    guards: list[PairedScores] = []
    closed: dict[str, ClosedFinding] = {}
    changes: dict[str, SubjectChange] = {}
    evals: list[str] = []
    for one, verdict in _judged_subjects(ws, found):
        if only and one.name not in only:
            continue
        items = items_of(ws, one, split)
        base = found.base
        after = measure(ws, ui, one, base=base, items=items, split=split, tuned=what)
        before = measure(ws, ui, one, base=base, items=items, split=split, tuned=against)
        evals += [before.id, after.id]
        pairs = paired(before, after)
        changes[one.name] = change_of(pairs, chance_of(before.samples))
        if verdict == "untaught":
            continue
        if verdict == "tune":
            closed[one.name] = judge_closed(
                scores_of(after.samples),
                goal=one.spec.goal,  # type: ignore[union-attr]  # guards are never `tune`
                margin=one.spec.margin,  # type: ignore[union-attr]
                level=level,
                later=later,
            )
        else:
            guards.append(_paired(one, before, pairs, witness=one.name in unseen))
    return Judgement(tuple(judge_guards(guards, level, later)), closed, changes, tuple(evals))


def _measure_in_turn(
    ws: Resolved, ui: Ui, found: GapReport, what: TunedModel, split: Split
) -> None:
    """Score all with one base and then all with the other, so that each is loaded once."""
    if what.base is None:
        return
    for which in (None, what):
        for one, _ in _judged_subjects(ws, found):
            items = items_of(ws, one, split)
            measure(ws, ui, one, base=found.base, items=items, split=split, tuned=which)


def _judged_subjects(ws: OpenWorkspace, found: GapReport) -> Iterator[tuple[Subject, str]]:
    for one in subjects(ws.spec):
        verdict = "guard" if one.role == "guard" else found.verdict(one.name)
        if one.name in found.untaught:
            yield one, "untaught"
        elif verdict in {"guard", "met", "tune"}:
            yield one, verdict


def _judge_adapter(
    ws: Resolved,
    ctx: StageContext,
    found: GapReport,
    what: TunedModel,
    against: TunedModel | None,
    parents: list[Parent],
) -> StageOutput:
    judged = judge(ws, ctx.ui, found, what, "dev", against=against)
    changes = {
        one.name: _looked_into(ws, ctx.ui, found, one, judged, what, against)
        for one, _ in _judged_subjects(ws, found)
    }
    result = {
        "adapter": what.adapter_id or None,
        "model": what.base,
        "scale": what.scale,
        "against": against.adapter_id if against else None,
        "split": "dev",
        "kept": [asdict(finding) for finding in judged.kept],
        "closed": {name: asdict(finding) for name, finding in judged.closed.items()},
        "changes": {name: asdict(change) for name, change in changes.items()},
    }
    parts = [Parent(ctx.run_id, "run"), *parents]
    parts += [Parent(eval_id, "eval") for eval_id in judged.evals]
    identity = {"run": ctx.run_id}
    meta = ForgettingMeta.model_validate(result)
    made = ws.store.put("forgetting", None, identity=identity, parents=parts, meta=meta)
    return StageOutput(result, [("forgetting", made)])


def _looked_into(
    ws: Resolved,
    ui: Ui,
    found: GapReport,
    one: Subject,
    judged: Judgement,
    what: TunedModel,
    against: TunedModel | None,
) -> SubjectChange:
    """Return a change with its KL, and with what comes back of a guard's lost items."""
    items, base = items_of(ws, one, "dev"), found.base
    before = measure(ws, ui, one, base=base, items=items, split="dev", tuned=against)
    kl = None  # of two bases: they are never in memory together
    if what.base is None:
        kl = divergence_of(
            ws, ui, one, base=base, items=items, before=before, tuned=what, against=against
        )
    finding = next((f for f in judged.kept if f.guard == one.name and not f.passes), None)
    again = None
    if finding is not None:
        lost = set(finding.lost_uids)
        again = reprompted(
            ws, ui, one, base=base, items=items, lost=lost, before=before, tuned=what
        )
    return replace(judged.changes[one.name], kl=kl, reprompt=again)


def _paired(one: Subject, before: EvalResult, pairs: PairedItems, *, witness: bool) -> PairedScores:
    spec = one.spec
    return PairedScores(
        name=one.name,
        uids=tuple(sample.row_uid for sample in before.samples),
        pairs=pairs,
        max_drop=getattr(spec, "max_drop", MET_MAX_DROP),
        accept=getattr(spec, "accept", False),
        witness=witness,
    )


def check_base(ws: OpenWorkspace, base: str, adapter_id: str) -> None:
    """Raise UserError where an adapter is of another base."""
    adapter = ws.catalog.manifest(adapter_id, WeightsMeta)
    if adapter.decided_by("base") != ws.models.identity(base).digest:
        raise ModelError(
            f"adapter {adapter_id[:12]} was trained on another base "
            f"({adapter.meta.base or 'unknown'})",
            where="train.base",
            expected=f"an adapter of '{base}' as it is now",
        )
