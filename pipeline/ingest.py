"""ingest: from the files that the spec names to an immutable dataset version.

Each dataset is its own stage, keyed by what the spec says of it and the hashes of its files.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pipeline.spec.pool import OWN_TEXT
from pipeline.spec.subjects import subjects
from pipeline.workspace.resolved import Resolved
from pipeline.workspace.stage import StageOutput, WouldRunError, find_outcome, run_stage, stage_key
from registry.errors import DataError, UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.workspace.bars import Bar
    from pipeline.workspace.stage import StageContext, StageOutcome
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.formats.arrays import HashArray
    from registry.datasets.versions.make import NewVersion, VersionRequest
    from registry.datasets.versions.splits import Assignment
    from registry.datasets.versions.version import WrittenVersion
    from registry.store.kinds import RunMeta
    from registry.store.manifest import Manifest

STAGE = "ingest"
VERSION = 2
_SHOWN_LEAKS = 5


@dataclass(frozen=True)
class DatasetReport:
    """What ingest made of one dataset; counts are of rows."""

    name: str
    version_id: str
    cached: bool
    seconds: float
    facts: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "dataset": self.name,
            "version": self.version_id,
            "cached": self.cached,
            "seconds": round(self.seconds, 3),
            **{key: value for key, value in self.facts.items() if key != "name"},
        }


@dataclass(frozen=True)
class IngestReport:
    """What ingest made of the datasets it was asked for, in that order."""

    datasets: tuple[DatasetReport, ...]

    @property
    def versions(self) -> dict[str, str]:
        """Dataset -> id of its version."""
        return {dataset.name: dataset.version_id for dataset in self.datasets}

    def as_json(self) -> tuple[DatasetReport, ...]:
        """Return the report of each dataset."""
        return self.datasets


def ingest(ws: OpenWorkspace, ui: Ui, names: Sequence[str] | None = None) -> IngestReport:
    """Make a version of each named dataset, or of all; one that is up to date is only found.

    Raises:
        UserError: an unknown dataset, files that can't be read, too many unusable rows.
    """
    from registry.datasets.versions.erased import erased_by_dataset

    chosen = ws.spec.datasets if names is None else names
    erased = erased_by_dataset(ws.catalog)
    return IngestReport(tuple(_ingest_one(ws, ui, name, erased.get(name)) for name in chosen))


def find_ingested(ws: OpenWorkspace, ui: Ui) -> tuple[IngestReport, dict[str, str]]:
    """Return what is up to date in a dry workspace, and dataset -> why it would be ingested.

    Raises:
        UserError: files that can't be read.
    """
    from registry.datasets.versions.erased import erased_by_dataset

    erased = erased_by_dataset(ws.catalog)
    found: list[DatasetReport] = []
    missing: dict[str, str] = {}
    for name in ws.spec.datasets:
        try:
            found.append(_ingest_one(ws, ui, name, erased.get(name)))
        except WouldRunError as error:
            missing[name] = error.why
    return IngestReport(tuple(found)), missing


def resolve(ws: OpenWorkspace, ui: Ui, names: Collection[str] | None = None) -> Resolved:
    """Return the workspace with the version of each named dataset, or of all, ingesting if need be.

    Of one that is resolved already nothing is asked again, whatever its files are by now.

    Raises:
        UserError: as `ingest`.
    """
    wanted = ws.spec.datasets if names is None else names
    had = ws.versions if isinstance(ws, Resolved) else {}
    missing = [name for name in wanted if name not in had]
    if isinstance(ws, Resolved) and not missing:
        return ws
    return Resolved.of(ws, {**had, **ingest(ws, ui, missing).versions})


def _ingest_one(
    ws: OpenWorkspace, ui: Ui, name: str, erased: Sequence[str] | None
) -> DatasetReport:
    """Make or find a version; `erased` are the erasures that took rows out of earlier ones."""
    if name not in ws.spec.datasets:
        known = ", ".join(ws.spec.datasets)
        raise UserError(f"no dataset is called '{name}'", expected=f"one of {known}")
    inputs = _inputs(ws, name, erased)
    done = find_outcome(ws, STAGE, stage_key(STAGE, inputs, version=VERSION))
    if done is None:
        with alone(ws):
            done = run_stage(
                ws,
                ui,
                STAGE,
                inputs,
                lambda context: _make_version(ws, context, name, inputs),
                version=VERSION,
                config={name: ws.spec.datasets[name].model_dump(mode="json")},
            )
    return _report(name, done)


def _report(name: str, done: StageOutcome) -> DatasetReport:
    return DatasetReport(name, done.outputs["version"], done.cached, done.seconds, done.result)


def _inputs(ws: OpenWorkspace, name: str, erased: Sequence[str] | None) -> dict[str, Any]:
    """Return what decides a version: what the spec says, the allowed labels, the files' hashes.

    What was committed before is left out on purpose, though it fixes splits: a version must be
    found again by the files that made it. What was erased from the dataset's versions is in it:
    the next version is one without those rows.
    """
    from registry.datasets.sources.resolve import source_files

    spec = ws.spec.datasets[name]
    labels = allowed_labels(ws, name)
    files = source_files(spec, ws.root)
    return ({"erased": erased} if erased else {}) | {
        "name": name,
        "spec": spec.model_dump(mode="json"),
        "labels": None if labels is None else sorted(labels),
        "files": [[f.label, f.split, _file_hash(f.path, f.label, ws.root)] for f in files],
    }


def allowed_labels(ws: OpenWorkspace, name: str) -> frozenset[str] | None:
    """Return the answers that the capabilities and guards on this dataset allow; None allows all.

    Only labels that the spec lists count: where it leaves them out, the data decide.
    """
    allowed: set[str] = set()
    for subject in (what.spec for what in subjects(ws.spec)):
        if subject.data == name:
            if not isinstance(subject.labels, tuple):
                return None
            allowed.update(subject.labels)
    return frozenset(allowed) if allowed else None


def _file_hash(path: Path, label: str, root: Path) -> str:
    """Return the SHA-256 of a file; one that looks as it did is not read again."""
    from registry.datasets.readers.read import columns_of
    from registry.store.hashing import remembered_digest

    if not path.is_file():
        columns_of(path)  # raises, and says what is there instead
    try:
        return remembered_digest(path, root)
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", where=label) from error


@contextmanager
def alone(ws: OpenWorkspace) -> Iterator[None]:
    """Let one ingest at a time into a store: a content must not get two uids."""
    if ws.dry:
        yield
        return
    ws.state.mkdir(parents=True, exist_ok=True)
    with FileLock(ws.state / "ingest.lock"):
        yield


def _make_version(
    ws: OpenWorkspace, context: StageContext, name: str, inputs: Mapping[str, Any]
) -> StageOutput:
    """Read, reject, place and write; the objects are put, and `run_stage` commits them."""
    from registry.datasets.readers.count import records_about
    from registry.datasets.sources.resolve import sources
    from registry.datasets.versions.make import VersionRequest, make_version
    from registry.datasets.versions.placed import REMEDY, not_followed
    from registry.store.kinds import ErasureMeta, RowsMeta, RunMeta

    spec = ws.spec.datasets[name]
    files = sources(spec, ws.root)
    for taken in files.taken:
        context.ui.log(f"{name}: {taken}")
    key = stage_key(STAGE, inputs, version=VERSION)
    there = ws.catalog.committed_of(RunMeta, RowsMeta, ErasureMeta)
    runs = _runs(there["run"], name)
    wanted = VersionRequest(
        name,
        spec,
        files,
        allowed_labels(ws, name),
        earlier=[_version_of(run) for run in runs],
        key=key,
        rows=there["rows"],
        erasures=there["erasure"],
    )
    with context.ui.progress(f"ingest · {name}", unit="records") as bar:

        def looked_at(done: int, total: int) -> None:
            bar.note("near-duplicates")
            bar.unit = "rows"
            bar.update(done, total)

        made = _appended(ws, wanted, runs, inputs, bar)
        if made is None:
            bar.total = records_about(file.path for file in files.files)
            made = make_version(ws.store, ws.catalog, wanted, bar.advance, looked_at)
    _tell_leaks(context.ui, name, made.hashes, made.placed)
    written = made.written
    facts = written.facts.as_json()
    for line in not_followed(spec, inputs["files"], [run.inputs for run in runs], facts["splits"]):
        context.ui.log(f"{name}: {line}; {REMEDY}")
    if made.withheld:
        rows = "1 row" if made.withheld == 1 else f"{made.withheld:,} rows"
        context.ui.log(f"{name}: {rows} were erased on purpose and are not taken in again")
        facts["erased"] = made.withheld
    return StageOutput(facts, _outputs(written))


def _appended(
    ws: OpenWorkspace,
    wanted: VersionRequest,
    runs: Sequence[RunMeta],
    inputs: Mapping[str, Any],
    bar: Bar,
) -> NewVersion | None:
    """Append to the version that the first of these files made, if there is one; else None."""
    from registry.datasets.readers.count import records_about
    from registry.datasets.versions.make import append_version, previous_version

    if wanted.files.num_samples is not None or wanted.erasures:
        return None  # what was erased from any dataset is looked for in every row
    for run in reversed(runs):
        there = _files_before(run, inputs)
        if not there:
            continue
        before = previous_version(ws.store, _version_of(run), run.key, wanted.earlier)
        if before is not None:
            bar.total = records_about(file.path for file in wanted.files.files[there:])
            return append_version(ws.store, ws.catalog, wanted, before, there, bar.advance)
    return None


def _files_before(run: RunMeta, inputs: Mapping[str, Any]) -> int:
    """Return how many files the run read, if these inputs only have more behind them; else 0."""
    was, files = run.inputs, inputs["files"]
    count = len(was["files"])
    same = {**was, "files": None} == {**inputs, "files": None}
    same = same and run.code_version == VERSION
    return count if same and count < len(files) and files[:count] == was["files"] else 0


def _runs(committed: Sequence[Manifest[RunMeta]], name: str) -> list[RunMeta]:
    """Return those of the runs that made a version of the dataset, oldest first."""
    runs = (run.meta for run in committed)
    ours = [run for run in runs if run.stage == STAGE and run.inputs["name"] == name]
    return [run for run in ours if run.status == "done"]


def earlier_runs(ws: OpenWorkspace) -> dict[str, list[RunMeta]]:
    """Return the runs that made versions of each dataset, oldest first."""
    from registry.store.kinds import RunMeta

    committed = ws.catalog.committed(RunMeta, stage=STAGE)
    return {name: _runs(committed, name) for name in ws.spec.datasets}


def own_text_versions(ws: OpenWorkspace) -> list[str]:
    """Return the versions that hold the own text of any base, oldest first."""
    from registry.store.kinds import RunMeta

    runs = [run.meta for run in ws.catalog.committed(RunMeta, stage=OWN_TEXT)]
    made = [one.id for run in runs if run.done for one in run.outputs if one.role == "version"]
    return list(dict.fromkeys(made))


def unfollowed(ws: OpenWorkspace, name: str, runs: Sequence[RunMeta]) -> list[str]:
    """Return what the spec says of a dataset's splits and its committed rows don't follow."""
    from registry.datasets.versions.placed import not_followed
    from registry.store.kinds import VersionMeta

    if not runs:
        return []
    files = _inputs(ws, name, None)["files"]
    counts = ws.catalog.manifest(_version_of(runs[-1]), VersionMeta).meta.splits
    return not_followed(ws.spec.datasets[name], files, [run.inputs for run in runs], counts)


def _version_of(run: RunMeta) -> str:
    return next(one.id for one in run.outputs if one.role == "version")


def _outputs(written: WrittenVersion) -> list[tuple[str, Any]]:
    *contents, version = written.objects
    rows = [(f"rows {number}", ref) for number, ref in enumerate(contents, 1)]
    places = [] if written.places is None else [("places", written.places)]
    return [*rows, ("version", version), *places]


def _tell_leaks(ui: Ui, name: str, hashes: HashArray, placed: Assignment) -> None:
    """Say which rows are held: near-duplicates of rows in another split."""
    if not placed.leaks:
        return
    from registry.datasets.duplicates.hash_index import as_texts

    shown = placed.leaks[:_SHOWN_LEAKS]
    names = as_texts(hashes[[leak.position for leak in shown]]).to_pylist()
    first = ", ".join(
        f"{row_hash[:12]} ({leak.wanted}, near {leak.against})"
        for row_hash, leak in zip(names, shown, strict=True)
    )
    ui.log(
        f"{name}: {len(placed.leaks)} rows are near-duplicates of rows in another split and are "
        f"held out of training and measuring, first: {first}"
    )
