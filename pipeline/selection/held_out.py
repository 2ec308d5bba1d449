"""Rows that are trained on, seen once more beside all that is held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.measure.held_items import MEASURED, held_items
from registry.datasets.duplicates.overlap import HeldOut, RowWords
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pipeline.workspace.resolved import Resolved
    from registry.datasets.duplicates.overlap import HeldOutItem
    from registry.datasets.versions.read import RowText


def refuse_leaks(ws: Resolved, selection_id: str) -> None:
    """See that no selected row is in a dev or test set, or a near-duplicate of what is.

    Looked at again before every training: a test set may have come in after the rows were chosen.

    Raises:
        UserError: one is; names the first.
    """
    from pipeline.selection.selection import read_selection

    held = HeldOut(held_items(ws))
    uids = {row.row_uid for row in read_selection(ws.store, selection_id)}
    rows = [row for batch in rows_to_train(ws, uids) for row in batch]
    near = held.near([row.question for row in rows])
    found: dict[int, tuple[RowText, HeldOutItem, str]] = {}
    for place, row in enumerate(rows):
        same = held.exact(RowWords(row.row_hash, row.text, row.question))
        for item in (*same, *near.get(place, ())):
            how = "is in" if item in same else "is a near-duplicate of a row in"
            found.setdefault(row.uid, (row, held.items[item], how))
    if not found:
        return
    row, what, how = found[min(found)]
    more = f", and {len(found) - 1} more like it" if len(found) > 1 else ""
    raise DataError(
        f"row {row.uid} of the selection {how} '{what.held_in}' ({what.where}){more}",
        where=row.where,
        expected="rows that nothing is measured by",
        fix="choose rows again: gapmend select",
    )


def rows_to_train(ws: Resolved, uids: Collection[int]) -> Iterator[list[RowText]]:
    """Yield these rows as the spec's datasets have them, deduplicated, those in train first.

    Then those of the base's own text.
    """
    from pipeline.ingest import own_text_versions
    from registry.datasets.versions.read import VersionReader

    left = set(uids)
    for splits in (("train",), (*MEASURED, "held")):
        for name in ws.spec.datasets:
            reader = VersionReader(ws.store, ws.versions[name], name)
            for rows in reader.texts(splits, frozenset(left)):
                left.difference_update(row.uid for row in rows)
                yield rows
    for version in own_text_versions(ws) if left else ():
        for rows in VersionReader(ws.store, version).texts(("train",), frozenset(left)):
            left.difference_update(row.uid for row in rows)
            yield rows
