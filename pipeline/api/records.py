"""What a workspace keeps, as a Python object: all that needs no spec."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.api.adapters import Adapters
from pipeline.api.datasets import Datasets
from pipeline.workspace.store import CHAMPION
from pipeline.workspace.ui import Ui
from registry.errors import GapmendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from pipeline.verbs.elsewhere.gguf_files import GgufDtype
    from pipeline.verbs.erase import EraseReport
    from pipeline.verbs.explain import Explanation
    from pipeline.verbs.export import ExportReport, Form
    from pipeline.verbs.gc import GcReport
    from pipeline.verbs.report import Form as ReportForm
    from pipeline.verbs.report import ReportFiles
    from pipeline.verbs.sign import SignReport, VerifyReport
    from pipeline.workspace.store import WorkspaceStore
    from registry.catalog.catalog import QueryResult
    from registry.catalog.lists import AdapterPage
    from registry.datasets.history.facts import DatasetEntry
    from registry.lineage.graph import Lineage
    from registry.lineage.rows import RowLineage, RowSource
    from registry.upkeep.fsck import FsckReport
    from registry.upkeep.rebuild import RebuildReport
    from registry.upkeep.snapshot import SnapshotFile


class Records:
    """Questions about a workspace and care of its store.

    Attributes:
        folder: the workspace's folder.
        adapter: the verbs of adapters: `adapter.show("champion")`.
        dataset: the verbs of datasets: `dataset.log("reviews")`.
    """

    def __init__(self, kept: WorkspaceStore, ui: Ui | None = None) -> None:
        """Wrap what a workspace keeps."""
        self._kept = kept
        self._ui = ui or Ui(as_json=True)
        self.folder = kept.root
        self.adapter = Adapters(kept)
        self.dataset = Datasets(kept, self._ui)

    def __repr__(self) -> str:
        """Return folder and champion in one line; never an error."""
        try:
            champion = self._kept.catalog.alias(CHAMPION) if self._kept.state.is_dir() else None
        except GapmendError:
            return f"{type(self).__name__}({str(self.folder)!r}, its catalog can't be read)"
        said = f"champion {champion[:12]}" if champion else "no champion yet"
        return f"{type(self).__name__}({str(self.folder)!r}, {said})"

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Ask the catalog in SQL, read-only; the views are in docs/reference/sql.md.

        Args:
            query: one SELECT.
            parameters: values for its `?`.

        Returns:
            All rows, with DuckDB's types; sums of integers as int64.

        Raises:
            UserError: with DuckDB's message, in one line.
        """
        return self._kept.catalog.frame(query, parameters)

    def query(self, query: str, parameters: Sequence[Any] = ()) -> QueryResult:
        """Ask like `sql`, for columns and rows as Python values."""
        return self._kept.catalog.sql(query, parameters)

    def explain(self) -> Explanation:
        """Tell in words what the newest mending did and why.

        Raises:
            UserError: nothing was mended here yet.
        """
        from pipeline.verbs.explain import explain

        return explain(self._kept)

    def report(
        self,
        thing: str | None = None,
        *,
        out: Path | None = None,
        form: ReportForm = "html",
        charts: Path | None = None,
    ) -> ReportFiles:
        """Write the report of an adapter, a merged model or the newest gap; see `gapmend report`.

        Raises:
            UserError: nothing was measured yet, nothing has that name, or `out` is a folder.
        """
        from pipeline.verbs.report import report

        with self._ui.progress("report", brief=True):
            return report(self._kept, thing, out=out, form=form, charts=charts)

    def status(self) -> dict[str, list[dict[str, Any]]]:
        """Return what runs, and what is there: versions, verdicts, adapters, aliases, last runs."""
        from pipeline.verbs.status import status

        return status(self._kept)

    def adapters(
        self, *, limit: int = 20, base: str | None = None, alias: str | None = None
    ) -> AdapterPage:
        """Return the newest adapters: of one base of the spec, or the one that has an alias."""
        from registry.catalog.lists import adapters

        return adapters(self._kept.catalog, limit=limit, base=base, alias=alias)

    def datasets(self) -> tuple[DatasetEntry, ...]:
        """Return every dataset by its newest version."""
        from pipeline.verbs.dataset import ls

        return ls(self._kept)

    def lineage(self, thing: str = CHAMPION, *, down: bool = False) -> Lineage:
        """Return all that a thing was made from or, with `down`, all that came of it.

        Args:
            thing: an id or the beginning of one, an alias, or a commit on the Hub.
            down: follow what was made from it.
        """
        from registry.lineage.graph import lineage

        return lineage(self._kept.catalog, thing, down=down)

    def source_files(self, thing: str = CHAMPION) -> tuple[RowSource, ...]:
        """Return the source files that a thing goes back to, with how many rows of each."""
        from registry.lineage.rows import sources_of

        return sources_of(self._kept.catalog, thing)

    def row_lineage(self, row_uid: int) -> RowLineage:
        """Return where a row came from, who chose it, and what it is in."""
        from registry.lineage.rows import row_lineage

        return row_lineage(self._kept.catalog, row_uid)

    def openlineage(self) -> list[dict[str, Any]]:
        """Return every run as OpenLineage events, the oldest first."""
        from registry.lineage.openlineage import openlineage

        return list(openlineage(self._kept.catalog))

    def export(
        self, thing: str, out: Path, *, form: Form = "safetensors", dtype: GgufDtype | None = None
    ) -> ExportReport:
        """Write a merged model or an adapter to a new folder; see `gapmend export`."""
        from pipeline.verbs.export import export

        return export(self._kept, self._ui, thing, out, form=form, dtype=dtype)

    def sign(self, thing: str = CHAMPION, *, key: Path) -> SignReport:
        """Sign an adapter or a merged model with a private key, offline."""
        from pipeline.verbs.sign import sign

        return sign(self._kept, self._ui, thing, key)

    def verify(self, thing: str = CHAMPION, *, key: Path) -> VerifyReport:
        """Check a signature, file by file, by its public key.

        Raises:
            GateRefusedError: it doesn't hold.
        """
        from pipeline.verbs.sign import verify

        return verify(self._kept, thing, key)

    def erase(
        self,
        where: str | None = None,
        *,
        rows: Sequence[int] = (),
        reason: str = "",
        do: bool = False,
    ) -> EraseReport:
        """Find rows and what saw them and, with `do`, take them out of everything.

        Args:
            where: an SQL condition over the view `rows`.
            rows: row uids, beside it or instead.
            reason: why, for the record; no content.
            do: erase; without, it is only looked.
        """
        from pipeline.verbs.erase import erase

        return erase(self._kept, self._ui, where, rows, reason=reason, do=do)

    def gc(self, *, remove: bool = False) -> GcReport:
        """Look for what nothing refers to and, with `remove`, remove it."""
        from pipeline.verbs.gc import gc

        return gc(self._kept, self._ui, remove=remove)

    def snapshot(self, file: Path) -> SnapshotFile:
        """Copy the catalog with its views into a DuckDB file that other programs may hold open."""
        from registry.upkeep.snapshot import write_snapshot

        return write_snapshot(self._kept.catalog, file)

    def fsck(self) -> FsckReport:
        """Hash every object again and compare the catalog with the store."""
        from registry.upkeep.fsck import fsck

        with self._over_objects("fsck") as advance:
            return fsck(self._kept.store, self._kept.catalog, advance)

    def rebuild(self) -> RebuildReport:
        """Make the catalog anew from the manifests in the store."""
        from registry.upkeep.rebuild import rebuild

        with self._over_objects("rebuild") as advance:
            return rebuild(self._kept.store, self._kept.catalog, advance)

    @contextmanager
    def _over_objects(self, label: str) -> Iterator[Callable[[int], None]]:
        """Show a bar over all objects of the store, and give what advances it."""
        total = sum(1 for _ in self._kept.store.folders())
        with self._ui.progress(label, total, "objects", brief=True) as bar:
            yield bar.advance
