"""run: the whole loop, each stage from what the one before recorded. plan: the same loop, dry.

This is the main path of gapmend, top to bottom.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from registry.errors import StoreRequestError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.mend import MendReport
    from pipeline.promote import PromoteReport
    from pipeline.train import TrainReport
    from pipeline.training.preview.dry_run import DryRun
    from pipeline.verbs.compare import CompareReport
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import Workspace

STAGES = ("ingest", "gap", "select", "train", "forget", "mend", "promote", "merge")


@dataclass(frozen=True)
class RunReport:
    """What the loop came to; `code` is the command's exit code."""

    done: tuple[FinishedStage, ...]
    code: int

    def as_json(self) -> tuple[FinishedStage, ...]:
        """Return each stage's report, in order."""
        return self.done


def loop(ws: Workspace, ui: Ui) -> Iterator[FinishedStage]:
    """Go through the stages; each is done, or found in the cache, when it is yielded."""
    made = ingest(ws, ui)
    yield FinishedStage("ingest", f"{len(ws.spec.datasets)} datasets", made)
    yield from _from_gap(Resolved.of(ws, made.versions), ui)


def _from_gap(ws: Resolved, ui: Ui) -> Iterator[FinishedStage]:
    """Go through the stages behind ingest, all on the versions that were found at the beginning."""
    found = gap(ws, ui)
    yield FinishedStage("gap", found.base, found)
    if not found.gaps():
        return
    selected = select(ws, ui)
    yield FinishedStage("select", ", ".join(found.gaps()), selected)
    trained = train(ws, ui, selected.selection_id)
    yield FinishedStage("train", ws.spec.train.method, trained)
    forgot = forget(ws, ui, TunedModel(trained.adapter_id))
    yield FinishedStage("forget", trained.adapter_id[:8], forgot)
    mended = mend(ws, ui, trained.adapter_id, selected.selection_id)
    yield FinishedStage("mend", mended.adapter_id[:8], mended)
    promoted = promote(ws, ui, mended.adapter_id)
    yield FinishedStage("promote", mended.adapter_id[:8], promoted)
    if promoted.promoted:
        yield FinishedStage("merge", mended.adapter_id[:8], merge(ws, ui, mended.adapter_id))


def run(ws: Workspace, ui: Ui) -> RunReport:
    """Run the loop and show each stage's report as it is done."""
    from pipeline.report.story import closing, shown

    done: list[FinishedStage] = []
    for one in loop(ws, ui):
        done.append(one)
        for renderable in shown(one):
            ui.show(renderable)
    for renderable in closing(ws, done):
        ui.show(renderable)
    refused = any(one.stage == "promote" and not one.report.promoted for one in done)
    return RunReport(tuple(done), code=1 if refused else 0)


def plan(ws: Workspace, ui: Ui) -> list[PlanStep]:
    """Go through the loop without running anything: what is up to date, what would run, why."""
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


def train_selection(ws: Workspace, ui: Ui, selection_id: str | None) -> TrainReport:
    """Train on a selection: the one named, or the one that the gap leads to."""
    ws = ws if selection_id else resolve(ws, ui)
    return train(ws, ui, _selected(ws, ui, selection_id))


def train_dry(ws: Workspace, ui: Ui, selection_id: str | None) -> DryRun:
    """Look at a training before its first step; see `train.dry`."""
    ws = resolve(ws, ui)
    return dry(ws, ui, _selected(ws, ui, selection_id))


def _selected(ws: Workspace, ui: Ui, selection_id: str | None) -> str:
    if selection_id is None:
        return select(ws, ui).selection_id
    manifest = ws.catalog.manifest(selection_id)
    if manifest.kind != "selection":
        raise StoreRequestError(f"'{selection_id}' is a {manifest.kind}", expected="a selection")
    return manifest.id


def compare_on(
    ws: Workspace, ui: Ui, selection_id: str | None, methods: str | None, sweep: str | None
) -> CompareReport:
    """Train by several methods, or several values of a setting, on one selection."""
    from pipeline.verbs.compare import by_methods, by_setting, compare

    if methods and sweep:
        raise UserError("two comparisons", expected="--compare or --sweep")
    if methods:
        names = [name.strip() for name in methods.split(",") if name.strip()]
        variants = by_methods(ws.spec, names)
    else:
        variants = by_setting(ws.spec, sweep or "")
    resolved = resolve(ws, ui)
    return compare(resolved, ui, _selected(resolved, ui, selection_id), variants)


def mend_first(ws: Workspace, ui: Ui) -> MendReport:
    """Mend the adapter that the gap's selection trains."""
    ws = resolve(ws, ui)
    selected = select(ws, ui)
    trained = train(ws, ui, selected.selection_id)
    return mend(ws, ui, trained.adapter_id, selected.selection_id)


def promote_mended(ws: Workspace, ui: Ui, adapter: str | None) -> PromoteReport:
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
