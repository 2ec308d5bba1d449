"""Items, labels and examples of a dataset version: no more of it is read than is used.

What is taken is chosen by the rows' hashes, which stand in the version's files of refs; then those
rows alone are read and become items. The rules are those of `items_from_rows`, `labels_of`,
`choose_shots` and `similar_shots`, which take rows or items that are in memory.
"""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from evals.tasks.capability import LIMIT_SALT, expected_of, items_from_rows, labels_from, labels_of
from evals.tasks.prompts import choose_shots, shot_salt, usable_shots
from evals.tasks.similar import POOL
from registry.datasets.versions.read import AT_ONCE, VersionReader
from registry.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from evals.tasks.capability import CapabilitySpec, GuardSpec, Item
    from evals.tasks.prompts import Arm

    Spec = CapabilitySpec | GuardSpec

_SPARE = 4  # examples that are read for each that is wanted: rows of a talk can't be one


def version_items(
    reader: VersionReader, spec: Spec, split: str, *, whole: bool = False, most: int | None = None
) -> list[Item]:
    """Return the items of a split, ascending by uid: by hash at most `spec.limit` unless `whole`.

    Args:
        reader: of the dataset's version.
        spec: what is measured.
        split: train, dev or test.
        whole: the limit doesn't count.
        most: only so many of them, the first.

    Raises:
        UserError: a row that can't be scored; see `items_from_rows`.
    """
    if spec.limit is None or whole:
        rows = reader.rows(reader.uids({split}, limit=most))
    else:
        rows = reader.first({split}, LIMIT_SALT, spec.limit)
        rows = sorted(rows, key=lambda row: row.uid)[:most]
    return items_from_rows(rows, spec, whole=True)


def version_labels(reader: VersionReader, spec: Spec, root: Path) -> tuple[str, ...]:
    """Return the labels of a choice, as `labels_of` does; the data are looked at last.

    Raises:
        UserError: as `labels_of`; an answer in the data that can't be scored.
    """
    if spec.answer != "choice" or spec.labels is not None:
        return labels_of(spec, (), root)
    files = (*reader.files.refs, *reader.files.rows)
    state = tuple((found.st_mtime_ns, found.st_size) for found in map(os.stat, files))
    return labels_from(spec, _answers(reader.store.root, reader.version_id, state))


def version_shots(reader: VersionReader, spec: Spec, arm: Arm, *, seed: int) -> tuple[Item, ...]:
    """Return the examples of an arm, the same for all items, as `choose_shots` does over all.

    Raises:
        UserError: train has too few distinct items.
    """
    if arm.shots == 0:
        return ()
    return choose_shots(first_shots(reader, spec, seed, arm.shots + 1), arm, seed=seed)


def first_shots(reader: VersionReader, spec: Spec, seed: int, clusters: int) -> list[Item]:
    """Return the train items that can be examples, in their order, until so many clusters."""
    found: list[Item] = []
    seen: set[int] = set()
    for item in _by_hash(reader, spec, seed, _SPARE * clusters):
        found.append(item)
        seen.add(item.cluster)
        if len(seen) == clusters:
            break
    return found


def shot_pool(reader: VersionReader, spec: Spec) -> list[Item]:
    """Return the train items that an item's own examples are looked for among, in their order."""
    return list(islice(_by_hash(reader, spec, 0, POOL), POOL))


def _by_hash(reader: VersionReader, spec: Spec, seed: int, first: int) -> Iterator[Item]:
    rows = reader.by_hash({"train"}, shot_salt(seed), first)
    return (item for row in rows for item in usable_shots(items_from_rows([row], spec, whole=True)))


@lru_cache(maxsize=16)
def _answers(root: Path, version_id: str, _: tuple[tuple[int, int], ...]) -> frozenset[str]:
    """Return every answer in a version, read once for each state of its files.

    Kept in memory alone: what is erased from a version must not live on in another file.
    """
    reader = VersionReader(Store(root), version_id)
    answers = reader.answers()
    found = set(answers.distinct)
    for begin in range(0, len(answers.others), AT_ONCE):
        rows = reader.rows(answers.others[begin : begin + AT_ONCE])
        found.update(expected_of(row) for row in rows)
    return frozenset(found)
