"""Held-out texts: whatever the workspace measures models by, which no adapter may be trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.spec.subjects import subjects
from registry.datasets.duplicates.overlap import HeldOut, HeldOutItem, RowWords
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.versions.read import RowText

_SPLITS = ("dev", "test")


def held_items(ws: Resolved) -> list[HeldOutItem]:
    """Return the dev and test rows of every dataset of the spec, and its lm-eval tasks' documents.

    Raises:
        UserError: a task that can't be loaded.
    """
    from registry.datasets.versions.read import VersionReader

    items = []
    for name in ws.spec.datasets:
        for rows in VersionReader(ws.store, ws.versions[name], name).texts(_SPLITS):
            items += [
                HeldOutItem(
                    f"{name} {row.split}", row.where, row.row_hash, row.text, (row.question,)
                )
                for row in rows
            ]
    items.sort(key=lambda item: (item.held_in, item.row_hash))
    for guard, task in lm_eval_tasks(ws).items():
        from evals.tasks.installed import documents

        items += [
            HeldOutItem(
                f"{guard} (lm-eval)", f"document {doc.position}", "", doc.text, doc.questions
            )
            for doc in documents(task, ws.root)
        ]
    return items


def lm_eval_tasks(ws: OpenWorkspace) -> dict[str, str]:
    """Return the guards that are lm-eval tasks, with the task or file that each names."""
    named = {what.name: getattr(what.spec, "lm_eval", None) for what in subjects(ws.spec)}
    return {name: task for name, task in named.items() if task is not None}


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
    for splits in (("train",), (*_SPLITS, "held")):
        for name in ws.spec.datasets:
            reader = VersionReader(ws.store, ws.versions[name], name)
            for rows in reader.texts(splits, frozenset(left)):
                left.difference_update(row.uid for row in rows)
                yield rows
    for version in own_text_versions(ws) if left else ():
        for rows in VersionReader(ws.store, version).texts(("train",), frozenset(left)):
            left.difference_update(row.uid for row in rows)
            yield rows
