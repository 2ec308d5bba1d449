"""run: the loop or a part of it, each stage from what was recorded. plan: the same loop, dry.

This is the main path of gapmend, top to bottom.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from pipeline.forget import forget, tuned
from pipeline.gap import gap
from pipeline.ingest import find_ingested, ingest, resolve
from pipeline.measure.measure import TunedModel
from pipeline.mend import mend
from pipeline.merge import merge
from pipeline.promote import promote
from pipeline.select import select
from pipeline.train import dry, train
from pipeline.workspace.resolved import Resolved
from pipeline.workspace.stage import FinishedStage, PlanStep, WouldRunError
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import StoreRequestError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.mend import MendReport
    from pipeline.outlook.cost import StageCost
    from pipeline.outlook.taken import CostReport, Meter
    from pipeline.promote import PromoteReport
    from pipeline.train import TrainReport
    from pipeline.training.preview.dry_run import DryRun
    from pipeline.verbs.compare import CompareReport
    from pipeline.workspace.ui import Ui

STAGES = ("ingest", "gap", "select", "train", "forget", "mend", "promote", "merge")
_Opened = TypeVar("_Opened", bound=OpenWorkspace)


@dataclass(frozen=True)
class RunReport:
    """What the loop came to; `code` is the command's exit code."""

    done: tuple[FinishedStage, ...]
    code: int
    cost: CostReport | None = None  # of what was run now, beside what was foreseen

    def as_json(self) -> tuple[FinishedStage, ...]:
        """Return each stage's report, in order, and at the end what they took, if any was run."""
        if self.cost is None:
            return self.done
        return (*self.done, FinishedStage("cost", self.cost.rates, self.cost))


def loop(ws: OpenWorkspace, ui: Ui, start: str = STAGES[0]) -> Iterator[FinishedStage]:
    """Go through the stages; each is done, or found in the cache, when it is yielded.

    Raises:
        WouldRunError: a stage before `start` is not up to date; those are only looked up.
    """
    made = ingest(_at("ingest", ws, start), ui)
    yield FinishedStage("ingest", f"{len(ws.spec.datasets)} datasets", made)
    yield from _from_gap(Resolved.of(ws, made.versions), ui, start)


def _from_gap(ws: Resolved, ui: Ui, start: str = STAGES[0]) -> Iterator[FinishedStage]:
    """Go through the stages behind ingest, all on the versions that were found at the beginning."""
    found = gap(_at("gap", ws, start), ui)
    yield FinishedStage("gap", found.base, found)
    if not found.gaps():
        return
    selected = select(_at("select", ws, start), ui)
    yield FinishedStage("select", ", ".join(found.gaps()), selected)
    trained = train(_at("train", ws, start), ui, selected.selection_id)
    yield FinishedStage("train", ws.spec.train.method, trained)
    forgot = forget(_at("forget", ws, start), ui, TunedModel(trained.adapter_id))
    yield FinishedStage("forget", trained.adapter_id[:8], forgot)
    mended = mend(_at("mend", ws, start), ui, trained.adapter_id, selected.selection_id)
    yield FinishedStage("mend", mended.adapter_id[:8], mended)
    promoted = promote(_at("promote", ws, start), ui, mended.adapter_id)
    yield FinishedStage("promote", mended.adapter_id[:8], promoted)
    if promoted.promoted:
        yield FinishedStage("merge", mended.adapter_id[:8], merge(ws, ui, mended.adapter_id))


def _at(stage: str, ws: _Opened, start: str) -> _Opened:
    """Return the workspace as `stage` is given it: dry where it comes before `start`."""
    return replace(ws, dry=True) if STAGES.index(stage) < STAGES.index(start) else ws


def run(
    ws: OpenWorkspace, ui: Ui, *, until: str | None = None, start: str | None = None
) -> RunReport:
    """Run the loop and show each stage's report as it is done.

    Args:
        ws: the workspace.
        ui: where progress and reports are shown.
        until: the last stage; by default `merge`.
        start: the first stage; those before it are only looked up, by default none.

    Raises:
        UserError: no such stage, `until` comes before `start`, or a stage before `start` is not
            up to date.
    """
    from pipeline.outlook.taken import Meter
    from pipeline.report.story import closing, shown

    first, last = span(start, until)
    meter = Meter(ws, *_foreseen_from(ws, ui, first, last))
    done: list[FinishedStage] = []
    try:
        for one in loop(ws, ui, first):
            done.append(one)
            meter.lap(one.stage)
            for renderable in shown(one) if one.stage in STAGES[STAGES.index(first) :] else ():
                ui.show(renderable)
            if one.stage == last != STAGES[-1]:
                break
        else:
            for renderable in closing(ws, done):
                ui.show(renderable)
    except WouldRunError as error:
        raise _not_up_to_date(STAGES[len(done)], error) from None
    cost = _taken(ui, meter)
    _report(ws, ui, done)
    refused = any(one.stage == "promote" and not one.report.promoted for one in done)
    return RunReport(tuple(done), code=1 if refused else 0, cost=cost)


def _foreseen_from(
    ws: OpenWorkspace, ui: Ui, first: str, last: str
) -> tuple[dict[str, StageCost], str]:
    """Say what the stages from `first` to `last` will take; return it by stage, and the rates.

    Of nothing where only files are read, or a stage before `first` is missing, at which it ends.
    """
    if last == STAGES[0]:
        return {}, ""
    steps = _steps(ws, ui)
    before = STAGES[: STAGES.index(first)]
    if any(step.stage in before and step.state != "up to date" for step in steps):
        return {}, ""
    steps, rates = _foreseen(ws, ui, steps, first, last)
    between = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    return {one.stage: one.cost for one in steps if one.cost and one.stage in between}, rates


def _taken(ui: Ui, meter: Meter) -> CostReport | None:
    """Keep what the stages took, and show it beside what was foreseen."""
    from pipeline.report.plan import taken_tables

    cost = meter.record()
    for renderable in taken_tables(cost) if cost else ():
        ui.show(renderable)
    return cost


def _report(ws: OpenWorkspace, ui: Ui, done: Sequence[FinishedStage]) -> None:
    """Write the report of what the run came to, and say where it is."""
    from rich.text import Text

    from pipeline.verbs.report import report_of_run

    told = {one.stage: one.report for one in done}
    last = told.get("mend") or told.get("train")
    thing = last.adapter_id if last else told["gap"].gap_id if "gap" in told else None
    if thing is not None:
        with ui.progress("report", brief=True):
            path = report_of_run(ws, thing)
        ui.show(Text(f"The report: {path}", no_wrap=True, overflow="ignore"))


def span(start: str | None, until: str | None) -> tuple[str, str]:
    """Return the first and the last stage of a run; without names, of the whole loop.

    Raises:
        UserError: no stage is called so, or the last comes before the first.
    """
    for option, name in (("--from", start), ("--until", until)):
        if name is not None and name not in STAGES:
            stages = f"one of {', '.join(STAGES)}"
            raise UserError(f"no stage is called '{name}'", option, stages, given=name)
    first, last = start or STAGES[0], until or STAGES[-1]
    if STAGES.index(last) < STAGES.index(first):
        order = f"{first} or a stage after it"
        raise UserError(f"'{last}' comes before '{first}'", "--until", order, given=last)
    return first, last


def _not_up_to_date(stage: str, error: WouldRunError) -> UserError:
    why = error.why if error.stage == stage else error
    return StoreRequestError(
        f"{stage} is not up to date ({why}), and nothing before this stage is run",
        where="--from",
        fix=f"run what is missing: gapmend run --until {stage}",
    )


def plan(ws: OpenWorkspace, ui: Ui) -> list[PlanStep]:
    """Say what is up to date, what would run and why, and what it will take; nothing is run.

    Raises:
        InvalidSpecError: what would stop a run, before any model is asked.
    """
    return _foreseen(ws, ui, _steps(ws, ui), STAGES[0], STAGES[-1])[0]


def _foreseen(
    ws: OpenWorkspace, ui: Ui, steps: list[PlanStep], first: str, last: str
) -> tuple[list[PlanStep], str]:
    """Say what won't do, where something would run; return the steps with what they take.

    And where the rates are from.
    """
    from pipeline.outlook.cost import run_cost
    from pipeline.outlook.finding import placed
    from pipeline.outlook.findings import outlook
    from pipeline.report.plan import cost_lines
    from pipeline.spec.errors import line_of

    ahead = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    if all(step.state == "up to date" for step in steps if step.stage in ahead):
        return steps, ""
    seen = outlook(ws, ui)
    trains = last not in ("ingest", "gap")
    findings = [one for one in seen.findings if trains or one.path[0] != "train"]
    for record in placed(ws.root, findings):
        ui.log(line_of(record))
    found = run_cost(ws, seen)
    costs = dict(found.stages)  # of ingest, that of all datasets stands once
    steps = [
        step if step.state == "up to date" else replace(step, cost=costs.pop(step.stage, None))
        for step in steps
    ]
    taken = {one.stage: one.cost for one in steps if one.cost and one.stage in ahead}
    for line in cost_lines(ws, taken, found.rates):
        ui.log(line)
    return steps, found.rates


def _steps(ws: OpenWorkspace, ui: Ui) -> list[PlanStep]:
    """Go through the loop without running anything."""
    dry = replace(ws, dry=True)
    made, missing = find_ingested(dry, ui)
    steps = [_ingest_step(name, missing.get(name)) for name in ws.spec.datasets]
    if missing:
        return [*steps, *_after("ingest")]
    try:
        for one in _from_gap(Resolved.of(dry, made.versions), ui):
            same = PlanStep(one.stage, one.about, "up to date", "same inputs as before")
            steps.append(same)
    except WouldRunError as error:
        # a stage may ask for an earlier one first; what would run is said under its own name
        steps.append(PlanStep(error.stage, "", "would run", error.why))
        steps += _after(error.stage)
    return steps


def train_selection(ws: OpenWorkspace, ui: Ui, selection_id: str | None) -> TrainReport:
    """Train on a selection: the one named, or the one that the gap leads to."""
    ws = ws if selection_id else resolve(ws, ui)
    return train(ws, ui, _selected(ws, ui, selection_id))


def train_dry(ws: OpenWorkspace, ui: Ui, selection_id: str | None) -> DryRun:
    """Look at a training before its first step; see `train.dry`."""
    ws = resolve(ws, ui)
    return dry(ws, ui, _selected(ws, ui, selection_id))


def _selected(ws: OpenWorkspace, ui: Ui, selection_id: str | None) -> str:
    if selection_id is None:
        return select(ws, ui).selection_id
    manifest = ws.catalog.manifest(selection_id)
    if manifest.kind != "selection":
        raise StoreRequestError(f"'{selection_id}' is a {manifest.kind}", expected="a selection")
    return manifest.id


def compare_on(
    ws: OpenWorkspace,
    ui: Ui,
    selection_id: str | None,
    methods: Sequence[str] | None,
    sweep: str | None,
) -> CompareReport:
    """Train by several methods, or several values of a setting, on one selection."""
    from pipeline.verbs.compare import by_methods, by_setting, compare

    if methods and sweep:
        raise UserError("two comparisons", expected="--compare or --sweep")
    variants = by_methods(ws.spec, methods) if methods else by_setting(ws.spec, sweep or "")
    resolved = resolve(ws, ui)
    return compare(resolved, ui, _selected(resolved, ui, selection_id), variants)


def mend_first(ws: OpenWorkspace, ui: Ui) -> MendReport:
    """Mend the adapter that the gap's selection trains."""
    ws = resolve(ws, ui)
    selected = select(ws, ui)
    trained = train(ws, ui, selected.selection_id)
    return mend(ws, ui, trained.adapter_id, selected.selection_id)


def promote_mended(ws: OpenWorkspace, ui: Ui, adapter: str | None) -> PromoteReport:
    """Promote the adapter named, or the one that mend came to."""
    ws = resolve(ws, ui)
    known = adapter is not None
    adapter_id = tuned(ws, adapter).adapter_id if known else mend_first(ws, ui).adapter_id
    return promote(ws, ui, adapter_id)


def _ingest_step(name: str, why: str | None) -> PlanStep:
    if why is not None:
        return PlanStep("ingest", name, "would run", why)
    return PlanStep("ingest", name, "up to date", "same files as before")


def _after(stage: str) -> list[PlanStep]:
    position = STAGES.index(stage)
    return [
        PlanStep(later, "", "after the above", f"needs {stage}") for later in STAGES[position + 1 :]
    ]
