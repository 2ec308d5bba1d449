"""`workspace.adapter`: show, compare, name and set aside adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.workspace.store import CHAMPION

if TYPE_CHECKING:
    from pipeline.verbs.adapter import AdapterDiff
    from pipeline.workspace.alias import AliasReport
    from pipeline.workspace.store import WorkspaceStore
    from registry.catalog.lists import AliasMove
    from registry.lineage.adapter_facts import AdapterFacts


class Adapters:
    """The adapters of a workspace, each named by its id, the beginning of one, or an alias."""

    def __init__(self, kept: WorkspaceStore) -> None:
        """Wrap what the workspace keeps."""
        self._kept = kept

    def show(self, name: str = CHAMPION) -> AdapterFacts:
        """Return its settings, scores, losses, rows, and where it went."""
        from pipeline.verbs.adapter import show

        return show(self._kept, name)

    def diff(self, first: str, second: str) -> AdapterDiff:
        """Compare settings, scores, rows and weights of two."""
        from pipeline.verbs.adapter import diff

        return diff(self._kept, first, second)

    def tag(
        self,
        name: str,
        alias: str,
        *,
        expect: str | None = None,
        reason: str = "",
        force: bool = False,
    ) -> AliasReport:
        """Point an alias at one; who moved it when, and why, is kept.

        Args:
            name: the adapter.
            alias: the name that moves.
            expect: move only if it points at this now; `none`: at nothing.
            reason: why, for the history.
            force: move `champion` without promote; wants a reason.
        """
        from pipeline.workspace.alias import tag

        return tag(self._kept, name, alias, expect=expect, reason=reason, force=force)

    def log(self, alias: str = CHAMPION) -> tuple[AliasMove, ...]:
        """Return where an alias has pointed, the first move first, with the reasons."""
        from pipeline.verbs.adapter import log

        return log(self._kept, alias)

    def remove(self, name: str, *, reason: str = "") -> str:
        """Set one aside and return its id: it is used no more; record and lineage stay."""
        from pipeline.verbs.adapter import remove

        return remove(self._kept, name, reason=reason)
