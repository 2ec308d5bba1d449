"""Held-out items: whatever the workspace measures models by; and datasets whose rows are all in it.

No adapter may be trained on what a dev or test set, or an lm-eval task, asks too.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.spec.pool import TRAINABLE, pool_of
from pipeline.spec.subjects import subjects
from registry.datasets.duplicates.overlap import HeldOut, HeldOutItem, RowWords
from registry.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.versions.row import Row

MEASURED = ("dev", "test")

_FIRST = 64  # rows of a dataset that are looked at first: one that is in no set is enough


def held_items(ws: Resolved) -> list[HeldOutItem]:
    """Return the dev and test rows of the spec's datasets, and its lm-eval tasks' documents.

    Raises:
        UserError: a task that can't be loaded.
    """
    return _held(ws.store, _versions(ws), lm_eval_tasks(ws), ws.root)


def lm_eval_tasks(ws: OpenWorkspace) -> dict[str, str]:
    """Return the guards that are lm-eval tasks, with the task or file that each names."""
    named = {what.name: getattr(what.spec, "lm_eval", None) for what in subjects(ws.spec)}
    return {name: task for name, task in named.items() if task is not None}


def words_of_row(row: Row) -> RowWords:
    """Return what is compared of a row."""
    return RowWords(row.row_hash, row.text, row.question)


def all_held(batches: Iterable[Sequence[RowWords]], held: HeldOut) -> Counter[str]:
    """Return by what rows overlap -> how many, where each of them does; nothing where one doesn't.

    Rows behind the first batch with one that doesn't are not asked for.
    """
    found: Counter[str] = Counter()
    for rows in batches:
        kinds = [held.refuses(row) for row in rows]
        left = [row.question for row, kind in zip(rows, kinds, strict=True) if kind is None]
        near = held.near(left)
        if len(near) < len(left):
            return Counter()
        found.update(filter(None, kinds))
        if near:
            found["near-duplicate"] += len(near)
    return found


def held_datasets(ws: Resolved) -> dict[str, Mapping[str, int]]:
    """Return the pool's datasets whose rows for training are all held out, and by what.

    Raises:
        UserError: a task that can't be loaded.
    """
    return _held_datasets(
        ws.store.root,
        tuple(_versions(ws).items()),
        tuple(lm_eval_tasks(ws).items()),
        ws.root,
        pool_of(ws.spec),
        ws.spec.train.objective,
    )


def rows_for_training(
    store: Store, version_id: str, name: str, objective: str
) -> Iterator[list[RowWords]]:
    """Yield a version's rows that an objective learns from, in ever larger batches."""
    from registry.datasets.versions.read import VersionReader

    rows = VersionReader(store, version_id, name).by_hash({"train"}, "pool", _FIRST)
    fit = (words_of_row(row) for row in rows if row.kind in TRAINABLE[objective])
    yield from growing(fit)


def growing(rows: Iterator[RowWords]) -> Iterator[list[RowWords]]:
    """Yield rows in ever larger batches."""
    size = _FIRST
    while batch := list(islice(rows, size)):
        yield batch
        size *= 4


# By each of the inputs, so that the verbs of one process, which all ask for the gap, look once.
@lru_cache(maxsize=8)
def _held_datasets(
    objects: Path,
    versions: tuple[tuple[str, str], ...],
    tasks: tuple[tuple[str, str], ...],
    root: Path,
    pool: tuple[str, ...],
    objective: str,
) -> dict[str, Mapping[str, int]]:
    store, by_name = Store(objects), dict(versions)
    held = HeldOut(_held(store, by_name, dict(tasks), root))
    found = {
        name: all_held(rows_for_training(store, by_name[name], name, objective), held)
        for name in pool
        if name in by_name
    }
    return {name: kinds for name, kinds in found.items() if kinds}


def _versions(ws: Resolved) -> dict[str, str]:
    return {name: ws.versions[name] for name in ws.spec.datasets if name in ws.versions}


def _held(
    store: Store, versions: Mapping[str, str], tasks: Mapping[str, str], root: Path
) -> list[HeldOutItem]:
    from registry.datasets.versions.read import VersionReader

    items = []
    for name, version in versions.items():
        for rows in VersionReader(store, version, name).texts(MEASURED):
            items += [
                HeldOutItem(
                    f"{name} {row.split}", row.where, row.row_hash, row.text, (row.question,)
                )
                for row in rows
            ]
    items.sort(key=lambda item: (item.held_in, item.row_hash))
    for guard, task in tasks.items():
        from evals.tasks.installed import documents

        items += [
            HeldOutItem(
                f"{guard} (lm-eval)", f"document {doc.position}", "", doc.text, doc.questions
            )
            for doc in documents(task, root)
        ]
    return items
