"""The datasets of a workspace: list, show and compare versions, name one, write one out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from registry.store.kinds import ExportMeta
from registry.store.locks import rows_stay
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.workspace.store import WorkspaceStore
    from pipeline.workspace.ui import Ui
    from registry.datasets.choices import FormName, Group
    from registry.datasets.export.export import ExportedFiles
    from registry.datasets.history.diff import RowChanges
    from registry.datasets.history.facts import DatasetEntry, VersionEntry, VersionFacts
    from registry.datasets.history.names import Version

_NO_TARGET = "none"


@dataclass(frozen=True)
class VersionDiff:
    """What differs between two versions: licences, rows by group, and the rows of one group."""

    a: Version
    b: Version
    rows: RowChanges
    shown: Group | None

    def as_json(self) -> dict[str, Any]:
        """Return the differences as JSON values."""
        sides = {
            side: {"version": one.id, "dataset": one.name, "rows": one.meta.rows,
                   "license": one.meta.license}
            for side, one in (("a", self.a), ("b", self.b))
        }  # fmt: skip
        found: dict[str, Any] = {**sides, "same": self.rows.same}
        found |= {str(group): count for group, count in self.rows.counts.items()}
        if self.shown is not None:
            found["shown"] = [asdict(change) for change in self.rows.shown]
        return found


@dataclass(frozen=True)
class TagReport:
    """A tag that was moved."""

    tag: str
    version: str
    previous: str | None
    reason: str


@dataclass(frozen=True)
class DatasetExport:
    """A folder that was written; `files` is name -> SHA-256, `export_id` the record of it."""

    version: str
    name: str
    form: FormName
    out: str
    rows: ExportedFiles
    files: dict[str, str]
    bytes: int
    export_id: str


def ls(ws: WorkspaceStore) -> tuple[DatasetEntry, ...]:
    """Return every dataset by its newest version."""
    from registry.datasets.history.facts import listing

    return listing(ws.catalog)


def log(ws: WorkspaceStore, name: str) -> tuple[VersionEntry, ...]:
    """Return the versions of a dataset, the oldest first.

    Raises:
        UserError: no dataset is called that.
    """
    from registry.datasets.history.facts import history

    return history(ws.store, ws.catalog, name)


def show(ws: WorkspaceStore, name: str, *, rows: int) -> VersionFacts:
    """Return what is known of the version that `name` names, with its first `rows` rows.

    Raises:
        UserError: nothing is called that.
    """
    from registry.datasets.history.facts import facts
    from registry.datasets.history.names import version_named

    return facts(ws.store, ws.catalog, version_named(ws.catalog, name), rows=rows)


def diff(
    ws: WorkspaceStore, first: str, second: str, *, show: Group | None = None, limit: int = 10
) -> VersionDiff:
    """Compare two versions row by row, by the rule of registry/datasets/history/diff.py.

    Args:
        ws: what the workspace keeps.
        first: the version before, by any name of it.
        second: the version after.
        show: a group whose rows are wanted.
        limit: at most so many of them.

    Raises:
        UserError: nothing is called that.
    """
    from registry.datasets.history.diff import row_changes
    from registry.datasets.history.names import version_named

    a, b = (version_named(ws.catalog, name) for name in (first, second))
    return VersionDiff(a, b, row_changes(ws.store, a.id, b.id, show=show, limit=limit), show)


def tag(
    ws: WorkspaceStore, name: str, label: str, *, expect: str | None = None, reason: str = ""
) -> TagReport:
    """Point the tag `label` at a version.

    Args:
        ws: what the workspace keeps.
        name: the version, by any name of it.
        label: the tag that moves.
        expect: what it must point at now (any name of a version, or `none`); by default what it
            is found at, so that a move by someone else in between is noticed.
        reason: why, for the history.

    Raises:
        UserError: nothing is called `name`, or the tag can't have this name.
        StoreError: the tag points at something else than `expect`.
    """
    from registry.datasets.history.names import move_tag, version_named

    version = version_named(ws.catalog, name)
    if expect is None:
        expected = ws.catalog.alias(label)
    else:
        expected = None if expect == _NO_TARGET else version_named(ws.catalog, expect).id
    move_tag(ws.store, ws.catalog, label, version.id, expect=expected, reason=reason)
    return TagReport(label, version.id, expected, reason)


def export(
    ws: WorkspaceStore, ui: Ui, name: str, out: Path, form: FormName, *, splits: Sequence[str] = ()
) -> DatasetExport:
    """Write a version to the new folder `out`, whole or not at all.

    Args:
        ws: the workspace that has it.
        ui: where progress is shown.
        name: the version, by any name of it.
        out: the folder; it must not be there, or be empty.
        form: what is written.
        splits: only these; by default train, dev and test.

    Raises:
        UserError: nothing is called that, `out` is in use, or the form can't say all of a row.
        StoreError: the version's files are missing or damaged.
    """
    from pipeline.verbs.export import digests, whole_folder
    from pipeline.workspace.stage import environment
    from registry.datasets.export.export import export_version
    from registry.datasets.history.names import version_named
    from registry.store.disk import one_line_when_full

    version = version_named(ws.catalog, name)
    total = sum(version.meta.splits.get(split, 0) for split in splits) or None
    with (
        rows_stay(ws.state, ws.catalog.wait_s),
        whole_folder(out) as draft,
        one_line_when_full(out),
        ui.progress(f"export · {version.name} as {form}", total, "rows") as bar,
    ):
        written = export_version(ws.store, version, draft, form, splits=splits, advance=bar.advance)
        files = digests(draft)
        size = sum((draft / path).stat().st_size for path in files)
        made = ws.store.put(
            "export",
            None,
            identity={"thing": version.id, "form": form, "files": files},
            parents=[Parent(version.id, "dataset_version")],
            meta=ExportMeta(form=form, bytes=size, environment=environment()),
        )
        ws.catalog.commit([made])
    return DatasetExport(
        version=version.id,
        name=version.name,
        form=form,
        out=str(out),
        rows=written,
        files=files,
        bytes=size,
        export_id=made.id,
    )
