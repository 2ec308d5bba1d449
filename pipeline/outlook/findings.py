"""What won't do in a workspace, by its spec, its datasets' first records and their versions.

Everything here costs seconds: no model is loaded, only the train base's tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.outlook.finding import Finding
from pipeline.outlook.prompts import (
    examples_too_long,
    fits_below,
    too_long,
    too_long_to_train,
)
from pipeline.outlook.settled import unsettled
from pipeline.outlook.survey import survey
from pipeline.spec import pool
from pipeline.spec.subjects import errors_at, subjects
from pipeline.workspace.resolved import Resolved
from registry.datasets.sources.mapped import lost_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pipeline.outlook.survey import Survey
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.sources.resolve import Sources
    from registry.store.kinds import RunMeta

_MEASURED = ("dev", "test")


@dataclass(frozen=True)
class Outlook:
    """What was looked at, and what was found.

    Attributes:
        files: dataset -> its files.
        surveys: dataset -> its first records.
        items: capability or guard -> rows in dev and test that it may ask.
        findings: what won't do.
    """

    files: Mapping[str, Sources]
    surveys: Mapping[str, Survey]
    items: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]


def outlook(ws: OpenWorkspace, ui: Ui, files: Mapping[str, Sources] | None = None) -> Outlook:
    """Look at everything that the spec names.

    Args:
        ws: the workspace.
        ui: where progress is shown.
        files: dataset -> its files, where they were found already.

    Raises:
        UserError: files, a base or an lm-eval task that can't be read.
    """
    parts = 2 * len(ws.spec.datasets) + len(subjects(ws.spec))
    with ui.progress("look ahead", total=parts, brief=True) as bar:
        return _outlook(ws, ui, files, bar.advance)


def _outlook(
    ws: OpenWorkspace,
    ui: Ui,
    files: Mapping[str, Sources] | None,
    advance: Callable[[], None],
) -> Outlook:
    from pipeline.ingest import allowed_labels, earlier_runs
    from pipeline.measure.taught import rows_of
    from registry.datasets.sources.resolve import sources

    specs = ws.spec.datasets
    if files is None:
        files = {name: sources(spec, ws.root) for name, spec in specs.items()}
    runs = earlier_runs(ws)
    versions = _versions(ws, ui, runs)
    known = {name: rows_of(ws.store.root, version) for name, version in versions.items()}
    context = ws.models.identity(ws.spec.train.base).context
    surveys = {}
    for name, spec in specs.items():
        asking = [what for what in subjects(ws.spec) if what.spec.data == name]
        size = min((fits_below(what, context) for what in asking), default=context)
        labels = allowed_labels(ws, name)
        surveys[name] = survey(name, spec, files[name], labels, size, known.get(name))
        advance()
    items = {what.name: _items(ws, what, surveys) for what in subjects(ws.spec)}
    found = [one for name in specs for one in _columns(ws, name, files[name], surveys[name])]
    if any(one.stops for one in found):  # what else there is follows from it
        return Outlook(files, surveys, items, tuple(found))
    for name in specs:
        found += _splits(ws, name, runs[name])
        advance()
    surveys |= _all_held(Resolved.of(ws, versions), files, surveys)
    found += _pool(ws, surveys)
    for name in pool.pool_of(ws.spec):
        found += too_long_to_train(ws, name, surveys[name])
    family = len(ws.spec.capabilities)
    for what in subjects(ws.spec):
        found += unsettled(what, items[what.name], family)
        if what.spec.data is not None:
            found += _examples(what, surveys[what.spec.data])
            found += examples_too_long(ws, what, surveys[what.spec.data])
            found += too_long(ws, what, surveys[what.spec.data])
        advance()
    return Outlook(files, surveys, items, tuple(found))


def _versions(ws: OpenWorkspace, ui: Ui, runs: Mapping[str, list[RunMeta]]) -> Mapping[str, str]:
    """Return the version of each dataset that has one which is up to date."""
    from pipeline.ingest import find_ingested

    if not any(runs.values()):
        return {}
    made, _ = find_ingested(replace(ws, dry=True), ui)
    return made.versions


def _all_held(
    ws: Resolved, files: Mapping[str, Sources], surveys: Mapping[str, Survey]
) -> dict[str, Survey]:
    """Return the surveys of the pool's datasets whose rows for training are all held out."""
    from pipeline.ingest import allowed_labels
    from pipeline.measure.held_items import all_held, growing, held_items, rows_for_training
    from pipeline.outlook.survey import rows_in_train
    from registry.datasets.duplicates.overlap import HeldOut

    objective = ws.spec.train.objective
    held = HeldOut([*held_items(ws), *(item for seen in surveys.values() for item in seen.held)])
    found = {}
    for name in pool.pool_of(ws.spec):
        if name in ws.versions:
            rows = rows_for_training(ws.store, ws.versions[name], name, objective)
        elif surveys[name].whole:
            labels = allowed_labels(ws, name)
            rows = growing(rows_in_train(name, files[name], labels, objective))
        else:
            continue
        if kinds := all_held(rows, held):
            seen = surveys[name]
            found[name] = replace(seen, rows=replace(seen.rows, held=kinds))
    return found


def _items(ws: OpenWorkspace, what: Subject, surveys: Mapping[str, Survey]) -> Mapping[str, int]:
    """Return how many items there are in dev and test, before any limit."""
    if what.spec.data is not None:
        splits = surveys[what.spec.data].rows.splits
        return {split: splits.get(split, 0) for split in _MEASURED}
    from evals.tasks.installed import installed_items

    with errors_at(what):
        named = str(what.spec.lm_eval)
        return {split: len(installed_items(named, ws.root, split)) for split in _MEASURED}


def _columns(ws: OpenWorkspace, name: str, files: Sources, seen: Survey) -> Iterator[Finding]:
    """Yield mapped columns that a file doesn't have, and records that can't be used."""
    mapped, lost = ws.spec.datasets[name].columns, False
    for one in lost_columns(
        mapped, files.format.required_columns, seen.columns, first=not seen.whole
    ):
        lost = True
        path = ("datasets", name, "columns", one.part)
        yield Finding(path, one.what, one.expected, one.fix, stops=seen.whole)
    count = sum(one for one, _ in seen.rejects.values())
    allowed = ws.spec.datasets[name].allow_rejects
    if lost or count <= allowed * seen.records:
        return
    from registry.datasets.readers.reading import remedy

    worst = sorted(seen.rejects.items(), key=lambda item: -item[1][0])[:3]
    told = "; ".join(f"{number:,} x {why} (first {where})" for why, (number, where) in worst)
    yield Finding(
        ("datasets", name),
        f"{count:,} of {seen.records:,} records can't be used: {told}",
        expected=f"at most {allowed:.1%} of them",
        fix=remedy(worst[0][0]) or f"mend them, or raise datasets.{name}.allow_rejects",
        stops=seen.whole and count == seen.records,
    )  # some: ingest stops at it, before any model is asked


def _examples(what: Subject, seen: Survey) -> Iterator[Finding]:
    """Yield that a prompt shows more examples than there are."""
    there = seen.rows.splits.get("train", 0)
    most = max(what.spec.prompts.few_shot, default=0)
    if what.role == "capability" and most > there:
        yield Finding(
            (what.section, what.name, "prompts", "few_shot"),
            f"{most} examples are wanted, and dataset '{what.spec.data}' has {there:,} rows in "
            "train: gap stops there, if the goal isn't met without",
            fix="ask for fewer, or add rows to train",
        )


def _splits(ws: OpenWorkspace, name: str, runs: list[RunMeta]) -> Iterator[Finding]:
    """Yield what is said of splits now, and committed rows don't follow."""
    from pipeline.ingest import unfollowed
    from registry.datasets.versions.placed import REMEDY

    for line in unfollowed(ws, name, runs):
        key = "path" if line.endswith("were") else "split"
        yield Finding(("datasets", name, key), line, fix=REMEDY)


def _pool(ws: OpenWorkspace, surveys: Mapping[str, Survey]) -> Iterator[Finding]:
    """Yield what the pool can't teach."""
    spec, objective = ws.spec, ws.spec.train.objective
    rows = {name: seen.rows for name, seen in surveys.items()}
    left = pool.untaught(spec, rows)
    if len(left) == len(spec.capabilities):
        why = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        fits = any(rows[name].kinds for name in pool.pool_of(spec))
        yield Finding(
            ("train", "objective" if fits else "pool"),
            f"no row of the pool can be trained on ({why})",
            expected="rows in train of a capability's dataset, or of one that nothing measures",
            fix="add rows, move some to train, or name more datasets in train.pool",
            stops=True,
        )
        return
    for name, why in left.items():
        yield Finding(
            ("capabilities", name),
            f"no row of the pool can teach it, should it have a gap: {why}",
            fix="name a dataset with rows for it in train.pool; else it is measured alone",
        )
    for name in pool.pool_of(spec):
        there = rows[name].kinds
        if there and not rows[name].trainable(objective):
            yield Finding(
                ("train", "objective"), f"{pool.no_rows(name, rows[name], objective)}: none is used"
            )
