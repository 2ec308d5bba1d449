"""mend: until the gaps are closed and nothing is lost, or the rounds are used up.

Each round looks at what the last adapter lost on dev. If that is nothing, mending is done. Else a
smaller scale of the same adapter is tried, which costs no training; and if none will do, rows move
to what was lost and an adapter is trained anew, from the same seed. A round that would add no row
for what was lost is not run: what is missing is said instead. Every step is a run of its own: one
that was killed goes on, one that was done is found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.forget import forget, judge
from pipeline.gap import gap
from pipeline.ingest import resolve
from pipeline.measure.filling import RowSource, unfilled, why_unfilled
from pipeline.measure.gates import SCALES, holds
from pipeline.measure.measure import TunedModel
from pipeline.measure.rounds import STAGE, Round
from pipeline.measure.scales import AtScale, Curve, smaller_scale
from pipeline.measure.settle import how_to_settle, supply_of
from pipeline.select import MendChange, select
from pipeline.selection.budget import MOST_ROWS, Budget, Need, next_budget
from pipeline.spec.subjects import subject, subjects
from pipeline.train import train
from pipeline.workspace.stage import StageOutput, run_stage
from registry.errors import UserError
from registry.store.kinds import SelectionMeta, VersionMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.forget import ForgetReport
    from pipeline.gap import GapReport
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

VERSION = 6


@dataclass(frozen=True)
class MendReport:
    """How mending ended: `adapter_id` is the adapter to use, at scale 1, whatever came of it.

    `missing` says what there was nothing to add for, so that no other round was run; `advice` what
    can still be done.
    """

    adapter_id: str
    mended: bool
    scale: float
    rounds: tuple[Round, ...]
    advice: tuple[str, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _State:
    """One round's adapter with what it was trained on and what it came to."""

    number: int
    adapter_id: str
    selection_id: str
    found: GapReport
    report: ForgetReport
    added: dict[str, int]
    unfilled: dict[str, str] = field(default_factory=dict)

    @property
    def fine(self) -> bool:
        return holds(self.report.closed.values(), self.report.kept)

    @property
    def lost(self) -> list[str]:
        """Guards, and capabilities that were met, that are not surely kept."""
        return [finding.guard for finding in self.report.kept if not finding.passes]

    @property
    def distance(self) -> tuple[int, float]:
        """How far from fine: verdicts that are not as they should be, then the score lost."""
        wrong = [f for f in self.report.kept if not f.passes]
        still = [f for f in self.report.closed.values() if f.verdict != "closed"]
        loss = sum(max(0.0, f.before - f.after) for f in wrong)
        return len(wrong) + len(still), loss + sum(max(0.0, f.goal - f.score.mean) for f in still)


def mend(ws: OpenWorkspace, ui: Ui, adapter_id: str, selection_id: str) -> MendReport:
    """Mend an adapter, at most `mend.rounds` times.

    Args:
        ws: the workspace.
        ui: where progress is shown.
        adapter_id: the adapter that the first selection trained.
        selection_id: that selection.
    """
    ws = resolve(ws, ui)
    found = gap(ws, ui)
    added: dict[str, int] = {}
    short: dict[str, int] = {}
    without: dict[str, str] = {}
    states: list[_State] = []
    rounds: list[Round] = []
    for number in range(ws.spec.mend.rounds + 1):
        report = forget(ws, ui, TunedModel(adapter_id))
        state = _State(number, adapter_id, selection_id, found, report, added, without)
        states.append(state)
        done = _look(ws, ui, state)
        rounds.append(done.round)
        if done.adapter_id:
            scale = done.round.scale or 1.0
            forget(ws, ui, TunedModel(done.adapter_id))  # on record for the adapter that is used
            return MendReport(done.adapter_id, True, scale, tuple(rounds), ())  # noqa: FBT003
        without = {}
        if number == ws.spec.mend.rounds:
            break
        budget = _next(ws, state)
        without = _unfilled(ws, state, _more(budget, _budget_of(ws, selection_id)), {})
        if _in_vain(state, without):  # so much is known before a row is looked for
            break
        lossy = TunedModel(adapter_id)
        change = MendChange(number + 1, budget, selection_id, lossy, _lost(report))
        selected = select(ws, ui, change)
        added = _difference(_rows_of(ws, selected.selection_id), _rows_of(ws, selection_id))
        without = _unfilled(ws, state, added, selected.missing)
        if not added or _in_vain(state, without):  # the pool has no more, or it may be no larger
            short = selected.missing
            break
        selection_id = selected.selection_id
        adapter_id = train(ws, ui, selection_id).adapter_id
    best = min(states, key=lambda state: state.distance)
    return MendReport(
        best.adapter_id,
        mended=False,
        scale=1.0,
        rounds=tuple(rounds),
        advice=_advice(ws, best, short, without),
        missing=tuple(without.values()),
    )


def _in_vain(state: _State, without: Mapping[str, str]) -> bool:
    """Tell whether a round would add no row for anything that was lost."""
    return bool(state.lost) and set(state.lost) <= without.keys()


def _unfilled(
    ws: Resolved, state: _State, added: Mapping[str, int], missing: Mapping[str, int]
) -> dict[str, str]:
    """Return what was lost and gets no rows -> what is missing, and what would help."""
    budget = _budget_of(ws, state.selection_id)
    own = {what.name for what in subjects(ws.spec)}
    free = [name for name in {**budget.replay, **added} if name not in own]
    left = unfilled(state.lost, added, budget.replay.keys() & own, free)
    rows = _rows_of(ws, state.selection_id)
    full = budget.total if budget.total >= MOST_ROWS * ws.spec.train.budget_rows else None
    said: dict[str, str] = {}
    for name in left:
        source = _source(ws, name, rows.get(name, 0), missing.get(name, 0))
        said[name] = why_unfilled(source, full)
        finding = next(f for f in state.report.kept if f.guard == name)
        if finding.verdict == "inconclusive":  # it may be that nothing was lost
            supply = supply_of(ws, name, "dev", finding.n)
            said[name] += f"; no loss is shown, {how_to_settle(supply, finding.items_to_settle)}"
    return said


def _source(ws: Resolved, name: str, replayed: int, short: int) -> RowSource:
    what = subject(ws.spec, name)
    there, data = 0, what.spec.data
    if data is not None:
        there = ws.catalog.manifest(ws.versions[data], VersionMeta).meta.splits.get("train", 0)
    key = f"guards.{name}" if what.role == "guard" else f"capabilities.{name}"
    return RowSource(key, data, there, replayed, short, name in ws.spec.witnesses)


@dataclass(frozen=True)
class _LossProbe:
    round: Round
    adapter_id: str | None  # the adapter at which everything holds


def _look(ws: Resolved, ui: Ui, state: _State) -> _LossProbe:
    """Record a round: whether everything holds, at this scale or at a smaller one."""
    inputs = {
        "adapter": state.adapter_id,
        "selection": state.selection_id,
        "forgetting": state.report.forgetting_id,
        "round": state.number,
        "added": state.added,
        "unfilled": sorted(state.unfilled),
        "scales": list(SCALES),
        "accept": sorted(name for name, guard in ws.spec.guards.items() if guard.accept),
    }
    parents = [
        Parent(state.adapter_id, "adapter"),
        Parent(state.selection_id, "selection"),
        Parent(state.report.forgetting_id, "forgetting"),
    ]
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: _mend_rounds(ws, ctx, state),
        version=VERSION,
        parents=parents,
    )
    used = state.adapter_id if state.fine else outcome.outputs.get("adapter")
    return _LossProbe(outcome.report(Round), used)


def _mend_rounds(ws: Resolved, ctx: StageContext, state: _State) -> StageOutput:
    def measured(scale: float, name: str) -> AtScale:
        tuned = TunedModel(state.adapter_id, scale)
        judged = judge(ws, ctx.ui, state.found, tuned, "dev", only={name})
        held = holds(judged.closed.values(), judged.kept)
        return AtScale(judged.changes[name].after, held)

    curve = Curve(state.report.closed, state.report.kept, measured)
    scale = 1.0 if state.fine else smaller_scale(curve)
    rows = ws.catalog.manifest(state.selection_id, SelectionMeta).meta
    result = Round(
        number=state.number,
        adapter_id=state.adapter_id,
        selection_id=state.selection_id,
        rows=rows.rows,
        replay_rows=rows.replay_rows,
        added=state.added,
        closed={name: finding.verdict for name, finding in state.report.closed.items()},
        kept={f.guard: "accepted" if f.accepted else f.verdict for f in state.report.kept},
        lost={f.guard: f.lost for f in state.report.kept},
        gained={f.guard: f.gained for f in state.report.kept},
        scale=scale,
        unfilled=state.unfilled,
        curve={f"{at:g}": scores for at, scores in sorted(curve.scores.items(), reverse=True)},
    )
    if scale is None or state.fine:
        return StageOutput(asdict(result))
    return StageOutput(asdict(result), [("adapter", _publish_scaled(ws, ctx, state, scale))])


def _publish_scaled(ws: OpenWorkspace, ctx: StageContext, state: _State, scale: float) -> Any:
    """Put the adapter at `scale` into the store, so that it is used at scale 1 ever after."""
    from registry.models.adapters import adapter_path, publish, write_scaled
    from registry.models.changed import publish_changed, write_scaled_changed
    from registry.models.files import holds_changed

    base = state.found.base
    folder = ctx.workdir / "scaled"
    source = adapter_path(ws.store, state.adapter_id)
    is_changed = holds_changed(source)
    if is_changed:
        loaded = ws.models.get(base)
        loaded.use(None)
        write_scaled_changed(source, loaded.model, scale, folder)
    else:
        write_scaled(source, scale, folder)
    meta = ws.catalog.manifest(state.adapter_id).meta.as_json()
    meta.pop("created_at", None)
    put = publish_changed if is_changed else publish
    return put(
        ws.store,
        folder,
        base=ws.models.identity(base),
        tokenizer=ws.models.chat(base).tokenizer,
        meta={**meta, "scale": scale, "round": state.number},
        parents=[Parent(ctx.run_id, "run"), Parent(state.adapter_id, "part")],
    )


def _next(ws: OpenWorkspace, state: _State) -> Budget:
    current = _budget_of(ws, state.selection_id)
    capabilities = {name: Need(f.verdict) for name, f in state.report.closed.items()}
    guards = {
        f.guard: Need("kept" if f.passes else f.verdict, max(0.0, f.before - f.after))
        for f in state.report.kept
    }
    return next_budget(
        current, capabilities, _with_free(current, guards), rows=ws.spec.train.budget_rows
    )


def _with_free(current: Budget, guards: Mapping[str, Need]) -> dict[str, Need]:
    """Let free datasets fill in for what was lost and has no rows of its own."""
    orphans = [need for name, need in guards.items() if name not in current.replay]
    lost = [need for need in orphans if need.verdict != "kept"]
    worst = max(lost, key=lambda need: need.loss, default=Need("kept"))
    return {name: guards.get(name, worst) for name in current.replay}


def _budget_of(ws: OpenWorkspace, selection_id: str) -> Budget:
    meta = ws.catalog.manifest(selection_id, SelectionMeta).meta
    return Budget(meta.budget, meta.replay)


def _rows_of(ws: OpenWorkspace, selection_id: str) -> dict[str, int]:
    """Return how many rows of a selection are for what."""
    rows: dict[str, int] = {}
    for part in ws.catalog.manifest(selection_id, SelectionMeta).meta.parts:
        rows[part.capability] = rows.get(part.capability, 0) + part.rows
    return rows


def _more(budget: Budget, before: Budget) -> dict[str, int]:
    """Return how many rows a budget has more than the one before, by name."""
    return _difference({**budget.gap, **budget.replay}, {**before.gap, **before.replay})


def _difference(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    changes = {name: now.get(name, 0) - before.get(name, 0) for name in {**before, **now}}
    return {name: change for name, change in changes.items() if change}


def _lost(report: ForgetReport) -> dict[str, tuple[int, ...]]:
    return {f.guard: f.lost_uids for f in report.kept if not f.passes}


def _advice(
    ws: OpenWorkspace, state: _State, short: Mapping[str, int], without: Mapping[str, str]
) -> tuple[str, ...]:
    """Return what can still be done: fill in more, a larger base, or accept the loss.

    `short` has what the pool ran out of, and how many rows of it were wanted and not there;
    `without` what has no rows to be filled in.
    """
    lost = [name for name in state.lost if name not in without]
    still = [name for name, f in state.report.closed.items() if f.verdict != "closed"]
    advice = [
        f"the pool has no more rows for {name} ({count} short): name more datasets in train.pool"
        for name, count in short.items()
        if name not in without
    ]
    if lost:
        named = ", ".join(lost)
        advice.append(f"fill in more for {named}: raise mend.rounds or train.replay")
    if still:
        named = ", ".join(still)
        advice.append(f"close {named}: more rows (train.budget_rows, a wider pool) or epochs")
    advice += [f"train a larger base: train.base: {name}" for name in _larger_bases(ws, state)]
    advice += [
        f"or take the loss of {name}, on the record: guards.{name}.accept: true"
        for name in state.lost
        if name in ws.spec.guards
    ]
    return tuple(advice)


def _larger_bases(ws: OpenWorkspace, state: _State) -> Sequence[str]:
    mine = ws.models.identity(state.found.base).parameters
    larger = []
    for name in ws.spec.bases:
        try:
            if ws.models.identity(name).parameters > mine:
                larger.append(name)
        except UserError:  # a base that can't be reached is no advice
            continue
    return larger
