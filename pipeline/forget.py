"""forget: measure, item by item, what an adapter made the base forget, and what it closed.

Guards, and capabilities that were met without training, are compared with the base on the same
dev items. Capabilities that were tuned are judged against their goal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from evals.forgetting import GuardFinding, PairedScores, judge_guards
from evals.gap import ClosedFinding, judge_closed
from evals.results import paired
from pipeline.gap import dev_inputs, gap, scores_of
from pipeline.measure import Subject, Tuned, items_of, measure, subjects
from pipeline.stage import StageOutput, run_stage
from registry.errors import UserError
from registry.store import Parent

if TYPE_CHECKING:
    from collections.abc import Collection

    from evals.evaluate import EvalResult
    from pipeline.gap import GapReport
    from pipeline.measure import Split
    from pipeline.stage import StageContext
    from pipeline.ui import Ui
    from pipeline.workspace import Workspace

STAGE = "forget"
VERSION = 2
CHAMPION = "champion"
"""The alias of the adapter in force."""

MET_MAX_DROP = 0.03
"""The largest drop of a capability that the base met: it is guarded though no guard names it."""


@dataclass(frozen=True)
class ForgetReport:
    """What an adapter lost, kept and closed, on one split."""

    adapter_id: str
    scale: float
    split: str
    kept: tuple[GuardFinding, ...]  # guards, and capabilities that were met
    closed: dict[str, ClosedFinding]  # tuned capability -> finding
    forgetting_id: str
    run_id: str
    cached: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


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
class Judged:
    """The verdicts on one adapter, and the evaluations that they rest on."""

    kept: tuple[GuardFinding, ...]
    closed: dict[str, ClosedFinding]
    evals: tuple[str, ...]


def forget(ws: Workspace, ui: Ui, what: Tuned) -> ForgetReport:
    """Compare an adapter with its base on dev."""
    from pydantic import TypeAdapter

    found = gap(ws, ui)
    inputs, parents = dev_inputs(ws, ui, found.base)
    inputs |= {"gap": found.gap_id, "adapter": what.adapter_id, "scale": what.scale}
    parents += [Parent(what.adapter_id, "adapter"), Parent(found.gap_id, "gap")]
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: _work(ws, ctx, found, what, parents),
        version=VERSION,
        parents=parents,
    )
    result = outcome.result
    return ForgetReport(
        adapter_id=what.adapter_id,
        scale=what.scale,
        split="dev",
        kept=TypeAdapter(tuple[GuardFinding, ...]).validate_python(result["kept"]),
        closed=TypeAdapter(dict[str, ClosedFinding]).validate_python(result["closed"]),
        forgetting_id=outcome.outputs["forgetting"],
        run_id=outcome.run_id,
        cached=outcome.cached,
        seconds=outcome.seconds,
    )


def changed_items(
    ws: Workspace, ui: Ui, report: ForgetReport, which: Literal["lost", "gained"]
) -> tuple[ChangedItem, ...]:
    """Return the items that were lost (or gained), guard by guard, with both answers.

    Reads what `forget` measured; nothing is scored again.
    """
    base, what = gap(ws, ui).base, Tuned(report.adapter_id, report.scale)
    found: list[ChangedItem] = []
    for finding in report.kept:
        uids = set(finding.lost_uids if which == "lost" else finding.gained_uids)
        if not uids:
            continue
        one = next(subject for subject in subjects(ws) if subject.name == finding.guard)
        items = items_of(ws, ui, one, "dev")
        before = measure(ws, ui, one, base=base, items=items, split="dev")
        after = measure(ws, ui, one, base=base, items=items, split="dev", tuned=what)
        answers = {sample.row_uid: sample.answer for sample in after.samples}
        found += [
            ChangedItem(
                finding.guard, s.row_uid, s.prompt, s.expected, s.answer, answers[s.row_uid]
            )
            for s in before.samples
            if s.row_uid in uids
        ]
    return tuple(found)


def tuned(ws: Workspace, name: str | None) -> Tuned:
    """Return the adapter that an id, a prefix of one or an alias names; by default the newest.

    Raises:
        UserError: there is none of that name, or none at all.
    """
    if name is None:
        adapters = ws.catalog.committed("adapter")
        if not adapters:
            raise UserError("no adapter is there yet", fix="train one: gapmend train")
        return Tuned(adapters[-1]["id"])
    target = ws.catalog.alias(name)
    if target is None and name == CHAMPION:
        raise UserError("no adapter is champion yet", fix="promote one: gapmend promote")
    manifest = ws.catalog.manifest(target or name)
    if manifest["kind"] != "adapter":
        raise UserError(f"'{name}' is a {manifest['kind']}", expected="an adapter")
    return Tuned(manifest["id"])


def judge(
    ws: Workspace,
    ui: Ui,
    found: GapReport,
    what: Tuned,
    split: Split,
    *,
    only: Collection[str] | None = None,
) -> Judged:
    """Score base and adapter on the same items of `split` and judge both sides.

    Tuned capabilities are judged by their goal; guards, and capabilities that the base met by
    itself, by what was lost. One that a prompt reaches is served by the base with that prompt,
    the adapter switched off; who wants it kept under the adapter names it as a guard. `only`
    limits it to the subjects named.
    """
    pairs: list[PairedScores] = []
    closed: dict[str, ClosedFinding] = {}
    evals: list[str] = []
    for one in subjects(ws):
        verdict = "guard" if one.role == "guard" else found.verdict(one.name)
        if verdict not in {"guard", "met", "tune"} or (only and one.name not in only):
            continue
        items = items_of(ws, ui, one, split)
        base = found.base
        after = measure(ws, ui, one, base=base, items=items, split=split, tuned=what)
        before = measure(ws, ui, one, base=base, items=items, split=split)
        evals += [before.id, after.id]
        if verdict == "tune":
            closed[one.name] = judge_closed(
                scores_of([after]),
                goal=one.spec.goal,  # type: ignore[union-attr]  # guards are never `tune`
                margin=one.spec.margin,  # type: ignore[union-attr]
            )
        else:
            pairs.append(_paired(one, before, after))
    return Judged(tuple(judge_guards(pairs)), closed, tuple(evals))


def _work(
    ws: Workspace, ctx: StageContext, found: GapReport, what: Tuned, parents: list[Parent]
) -> StageOutput:
    judged = judge(ws, ctx.ui, found, what, "dev")
    result = {
        "adapter": what.adapter_id,
        "scale": what.scale,
        "split": "dev",
        "kept": [asdict(finding) for finding in judged.kept],
        "closed": {name: asdict(finding) for name, finding in judged.closed.items()},
    }
    parts = [Parent(ctx.run_id, "run"), *parents]
    parts += [Parent(eval_id, "eval") for eval_id in judged.evals]
    identity = {"run": ctx.run_id}
    made = ws.store.put("forgetting", None, identity=identity, parents=parts, meta=result)
    return StageOutput(result, [("forgetting", made)])


def _paired(one: Subject, before: EvalResult, after: EvalResult) -> PairedScores:
    spec = one.spec
    return PairedScores(
        name=one.name,
        uids=tuple(sample.row_uid for sample in before.samples),
        pairs=paired(before, after),
        max_drop=getattr(spec, "max_drop", MET_MAX_DROP),
        accept=getattr(spec, "accept", False),
    )
