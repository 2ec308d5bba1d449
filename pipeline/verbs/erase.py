"""erase: rows out of every version, and out of whatever was measured with them or chose them.

It shows first how far they have come. What was trained on them stays as it is, and is told.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.verbs.gc import running
from registry.errors import StoreRequestError
from registry.lineage.reach import reach
from registry.store.filenames import REPORTS
from registry.store.locks import rows_go
from registry.upkeep.erase import erase as erase_rows
from registry.upkeep.erase import erasing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.workspace.store import WorkspaceStore
    from pipeline.workspace.ui import Ui
    from registry.lineage.reach import Reach

_SHOWN = 3  # row numbers in a message


@dataclass(frozen=True)
class EraseReport:
    """What an erasure would do, or did.

    Attributes:
        erasure_id: the tombstone; None where nothing was erased yet.
        reach: the rows, and what they have reached.
        objects: kind -> how many objects had rows taken out of them.
    """

    erasure_id: str | None
    reach: Reach
    objects: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "erased": self.erasure_id is not None,
            "erasure_id": self.erasure_id,
            **asdict(self.reach),
            "redacted": self.objects,
        }


def erase(
    ws: WorkspaceStore, ui: Ui, where: str | None, rows: Sequence[int], *, reason: str, do: bool
) -> EraseReport:
    """Find the rows and what they have reached and, with `do`, erase them.

    Args:
        ws: the workspace.
        ui: where progress is shown.
        where: an SQL condition over the view `rows`.
        rows: row uids, beside or instead of it.
        reason: why, for the record.
        do: erase them, and not only look.

    Raises:
        UserError: a condition that is none, no such rows, a stage that is running, another process
            that erases, or another program that has the catalog open.
    """
    if not do:
        return EraseReport(None, reach(ws.catalog, _chosen(ws, where, rows)), {})
    with erasing(ws.state), rows_go(ws.state) as alone:
        if not alone or running(ws.state):  # of an older gapmend
            raise _in_use(ws)
        uids = _chosen(ws, where, rows)
        before = reach(ws.catalog, uids)
        _without_reports(ws)  # they quote rows, and a kill may come before the end
        total = sum(1 for _ in ws.store.folders())
        with ui.progress("erase", total, "objects") as bar:
            done = erase_rows(ws.store, ws.catalog, uids, reason=reason, advance=bar.advance)
        _without_reports(ws)  # of who made one meanwhile
        return EraseReport(done.id, before, dict(done.objects))


def _without_reports(ws: WorkspaceStore) -> None:
    shutil.rmtree(ws.state / REPORTS, ignore_errors=True)


def _chosen(ws: WorkspaceStore, where: str | None, rows: Sequence[int]) -> list[int]:
    found: set[int] = set()
    if where is not None:
        # In a line of its own: a comment at its end would take the bracket with it.
        query = f"SELECT DISTINCT row_uid FROM rows WHERE (\n{where}\n)"  # noqa: S608 - guarded
        found |= {row[0] for row in ws.catalog.sql(query).rows}
    if rows:
        listed = ", ".join(map(str, map(int, rows)))
        query = f"SELECT DISTINCT row_uid FROM rows WHERE row_uid IN ({listed})"  # noqa: S608
        there = {row[0] for row in ws.catalog.query(query).rows}
        if missing := sorted(set(rows) - there):
            shown = ", ".join(map(str, missing[:_SHOWN]))
            raise StoreRequestError(
                f"no row has the number {shown}", expected="row_uid of the view rows"
            )
        found |= there
    if not found:
        raise StoreRequestError(
            "no row is meant" if where is None else "no row is as the condition says",
            where=None if where is None else "--where",
            expected="a condition over the view rows, as in \"split = 'dev'\", or --row UID",
        )
    return sorted(found)


def _in_use(ws: WorkspaceStore) -> StoreRequestError:
    busy = ", ".join(running(ws.state)) or "another command"
    return StoreRequestError(
        f"a stage is running and may write what it has read: {busy}",
        fix="wait for it, or stop it, and run again",
    )
