"""`workspace.dataset`: show, compare, name and write out versions of datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.verbs.dataset import DatasetExport, TagReport, VersionDiff
    from pipeline.workspace.store import WorkspaceStore
    from pipeline.workspace.ui import Ui
    from registry.datasets.choices import FormName, Group
    from registry.datasets.history.facts import VersionEntry, VersionFacts


class Datasets:
    """The datasets of a workspace.

    A version is named by a dataset (its newest), a tag, an id, the beginning of one, or NAME@TAG.
    """

    def __init__(self, kept: WorkspaceStore, ui: Ui) -> None:
        """Wrap what the workspace keeps."""
        self._kept = kept
        self._ui = ui

    def log(self, name: str) -> tuple[VersionEntry, ...]:
        """Return the versions of a dataset, the oldest first."""
        from pipeline.verbs.dataset import log

        return log(self._kept, name)

    def show(self, version: str, *, rows: int = 3) -> VersionFacts:
        """Return what is known of a version, with its first rows."""
        from pipeline.verbs.dataset import show

        return show(self._kept, version, rows=rows)

    def diff(
        self, first: str, second: str, *, show: Group | None = None, limit: int = 10
    ) -> VersionDiff:
        """Compare two versions row by row; `limit` rows of the group `show` come with it."""
        from pipeline.verbs.dataset import diff

        return diff(self._kept, first, second, show=show, limit=limit)

    def tag(
        self, version: str, name: str, *, expect: str | None = None, reason: str = ""
    ) -> TagReport:
        """Point a tag at a version; who moved it when, and why, is kept.

        Args:
            version: the version.
            name: the tag that moves.
            expect: move only if it points at this now; `none`: at nothing.
            reason: why, for the history.
        """
        from pipeline.verbs.dataset import tag

        return tag(self._kept, version, name, expect=expect, reason=reason)

    def export(
        self,
        version: str,
        out: Path,
        form: FormName = "parquet",
        *,
        splits: Sequence[str] = (),
    ) -> DatasetExport:
        """Write a version to a new folder, whole or not at all; by default all three splits."""
        from pipeline.verbs.dataset import export

        return export(self._kept, self._ui, version, out, form, splits=splits)
