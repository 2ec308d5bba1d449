"""The placement of appended rows: split and cluster of what new files add to a dataset's version.

What was there isn't read again: its rows keep their places and splits. Looked at are the older
rows in a cluster with a new row, and those that stand in a new file too. The version before has

    place 0: A, train        place 1: B, dev        place 2: C, train

and a new file given as train holds B and D, a near-duplicate of A. Then `places` is [1, 3]: B was
there (its second source is added, and an exact leak is counted), D is fresh and comes behind C.
Bands propose (A, D), their Jaccard similarity joins them, and `groups` goes from [0, 1, 2] to
[0, 1, 2, 0]. A and B are looked at, C is not. D becomes train as A is; near B it would be `held`,
as a cluster never straddles splits (splits.py).

Why that is the outcome of a whole ingest of all files, of which tests compare every column: a
cluster's splits are decided by its own rows alone, and a cluster without a new row or a new source
has the rows it had. How many rows a split still wants is counted over the whole version. (Of near
pairs at .8 one in a million may be missed; see `_without_strays`.)

For m new rows beside n: m searches in the memory-mapped index, one sequential pass over the bands
(192 bytes a row) and the groups (4 bytes a row), and reads of the rows that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.datasets.duplicates.bands import runs_with
from registry.datasets.duplicates.hash_index import HashIndex
from registry.datasets.duplicates.near_duplicates import join, sketch
from registry.datasets.versions.collect import in_several_splits
from registry.datasets.versions.read import VersionReader
from registry.datasets.versions.refs import refs_at, refs_paths
from registry.datasets.versions.splits import CODED, NOWHERE, Assignment, PlacedRows, Target, assign
from registry.datasets.versions.version import split_targets

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from registry.datasets.formats.arrays import Int32Array, Int64Array, KeyArray, Uint8Array
    from registry.datasets.spec import DatasetSpec
    from registry.datasets.versions.append_index import FormerRows, RowIndex
    from registry.datasets.versions.collect import CollectedRows
    from registry.datasets.versions.spool import Texts
    from registry.store.kinds import VersionMeta
    from registry.store.manifest import Manifest
    from registry.store.objects import ObjectRef, Store

_LOOKED_AT = ("row_hash", "split", "cluster", "sources")
_AT_ONCE = 10_000  # texts that are sketched at a time


@dataclass(frozen=True)
class PreviousVersion:
    """The version that files are appended to, and its index."""

    version: ObjectRef
    manifest: Manifest[VersionMeta]
    index: RowIndex
    refs: tuple[Path, ...]

    @classmethod
    def of(cls, store: Store, version: ObjectRef, index: RowIndex) -> PreviousVersion:
        """Read the version's manifest."""
        from registry.store.kinds import VersionMeta
        from registry.store.manifest import manifest_in

        manifest = manifest_in(version.path, VersionMeta)
        return cls(version, manifest, index, tuple(refs_paths(store, version)))


@dataclass(frozen=True)
class OlderRows:
    """Rows of the version before that were looked at.

    Attributes:
        places: among its rows, ascending.
        table: what its refs say of them: hash, split, cluster and sources.
        stood: the splits of the files that they stood in, a bit each.
        stand: the same with the new files.
    """

    places: Int64Array
    table: pa.Table
    stood: Uint8Array
    stand: Uint8Array


@dataclass(frozen=True)
class AppendedContents:
    """Where the contents of the new files are put.

    Attributes:
        places: of each content that was found, among the rows of the new version.
        fresh: the numbers of those that the version before hasn't; their places follow its own.
        keys: the bands of the fresh ones.
        groups: of near-duplicates, of all rows.
        older: rows of the version before that are near a fresh one, or were found again.
        placed: split and cluster of the older ones and, behind them, of the fresh ones.
        rows: what `placed` was decided by.
    """

    places: Int64Array
    fresh: Int64Array
    keys: KeyArray
    groups: Int32Array
    older: OlderRows
    placed: Assignment
    rows: PlacedRows


def place_appended(
    store: Store, spec: DatasetSpec, before: PreviousVersion, found: CollectedRows, texts: Texts
) -> AppendedContents:
    """Decide split and cluster of what was found in new files; `texts` are what each asks."""
    index = before.index
    places = index.find(found.index.hashes)
    fresh = np.flatnonzero(places < 0)
    again = np.unique(places[places >= 0])
    places[fresh] = np.arange(index.rows, index.rows + len(fresh))
    keys = _sketch(texts, fresh)
    groups = _groups(store, before, texts, fresh, keys)
    near = np.zeros(len(groups), np.bool_)
    near[groups[index.rows :]] = True
    near = near[groups]
    near[again] = True
    older = _older(before, np.flatnonzero(near[: index.rows]), found, places)
    rows = _candidates(index.former, older, found, fresh)
    splits = rows.committed[: len(older.places)]
    targets = [
        Target(target.split, target.rows - _elsewhere(before, target.split, splits))
        for target in split_targets(spec, index.rows + len(fresh))
    ]
    here: Int32Array = np.concatenate((groups[older.places], groups[index.rows :]))
    return AppendedContents(places, fresh, keys, groups, older, assign(rows, here, targets), rows)


def _sketch(texts: Texts, fresh: Int64Array) -> KeyArray:
    """Return the bands of the fresh ones among the texts."""
    found = [sketch(())]
    for begin in range(0, len(texts), _AT_ONCE):
        first, last = np.searchsorted(fresh, [begin, begin + _AT_ONCE])
        if first < last:
            some = texts.array(begin, _AT_ONCE).take(fresh[first:last] - begin).to_pylist()
            found.append(sketch(some))
    return np.concatenate(found, axis=1)


class _ByPlace:
    """What rows ask, by place: some of the version before, and the fresh ones."""

    def __init__(self, older: dict[int, str], rows: int, texts: Texts, fresh: Int64Array) -> None:
        self._older, self._rows, self._texts, self._fresh = older, rows, texts, fresh

    def __getitem__(self, place: int, /) -> str:
        if place < self._rows:
            return self._older[place]
        return self._texts[int(self._fresh[place - self._rows])]


def _groups(
    store: Store, before: PreviousVersion, texts: Texts, fresh: Int64Array, keys: KeyArray
) -> Int32Array:
    """Join the fresh rows to the groups that were there."""
    index = before.index
    runs = _without_strays(list(runs_with(index.bands, keys)), index.rows)
    asked = np.array(sorted({one for run in runs for one in run if one < index.rows}), np.int64)
    uids = index.uids_of(asked)
    said = VersionReader(store, before.version.id).user_texts(uids.tolist())
    older = {place: said[uid] for place, uid in zip(asked.tolist(), uids.tolist(), strict=True)}
    by_place = _ByPlace(older, index.rows, texts, fresh)
    return join(index.rows + len(fresh), runs, by_place, index.groups)


def _without_strays(runs: list[list[int]], older: int) -> list[list[int]]:
    """Leave out older rows that share one band alone with all fresh ones: to read them costs most.

    Two texts at .8 share two bands or more with probability 1 - 1.1e-6, and one or more, which a
    whole ingest asks for, with 1 - 4.7e-8.
    """
    there = [one for run in runs for one in run if one < older]
    found, bands = np.unique(np.array(there, np.int64), return_counts=True)
    strays = set(found[bands == 1].tolist())
    left = ([one for one in run if one not in strays] for run in runs)
    return [run for run in left if len(run) > 1]


def _older(
    before: PreviousVersion, looked_at: Int64Array, found: CollectedRows, places: Int64Array
) -> OlderRows:
    """Read what the version before says of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = refs_at(before.refs, looked_at, _LOOKED_AT).combine_chunks()
    sources = table["sources"].combine_chunks()
    said = pc.index_in(sources.flatten().field("split"), value_set=pa.array(CODED))
    stood = np.zeros(len(table), np.uint8)
    parents = pc.list_parent_indices(sources).to_numpy()
    np.bitwise_or.at(
        stood, parents, np.left_shift(1, said.to_numpy().astype(np.uint8), dtype=np.uint8)
    )
    stand = stood.copy()
    again = np.flatnonzero(places < before.index.rows)
    np.bitwise_or.at(stand, np.searchsorted(looked_at, places[again]), found.stands[again])
    return OlderRows(looked_at, table, stood, stand)


def _candidates(
    gone: FormerRows, older: OlderRows, found: CollectedRows, fresh: Int64Array
) -> PlacedRows:
    """Return the older rows, which were committed, and the fresh ones, which may have been."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from registry.datasets.duplicates.hash_index import hashes_of

    hashes = found.index.hashes[fresh]
    committed, clusters = np.full(len(fresh), NOWHERE, np.uint8), np.zeros(len(fresh), np.int64)
    if len(gone.splits):
        known = HashIndex()
        known.add(gone.hashes)
        where = known.find(hashes)
        committed[where >= 0] = gone.splits[where[where >= 0]]
        clusters[where >= 0] = gone.clusters[where[where >= 0]]
    splits = pc.index_in(older.table["split"].combine_chunks(), value_set=pa.array(CODED))
    strongest = np.array([max(0, bits.bit_length() - 1) for bits in range(256)], np.uint8)
    return PlacedRows(
        np.concatenate((hashes_of(older.table["row_hash"].combine_chunks()), hashes)),
        np.concatenate((strongest[older.stand], found.given[fresh])),
        np.concatenate((splits.to_numpy().astype(np.uint8), committed)),
        np.concatenate((older.table["cluster"].to_numpy(), clusters)),
    )


def _elsewhere(before: PreviousVersion, split: str, looked_at: Uint8Array) -> int:
    """Return how many rows of a split there are that weren't looked at."""
    rows = before.manifest.meta.splits.get(split, 0)
    return rows - int(np.count_nonzero(looked_at == CODED.index(split)))


def newly_leaked(appended: AppendedContents, found: CollectedRows) -> int:
    """Return how many rows stand in files of more than one split only since the new files came."""
    older = appended.older
    before = ~in_several_splits(older.stood) & in_several_splits(older.stand)
    fresh = in_several_splits(found.stands[appended.fresh])
    return int(np.count_nonzero(before)) + int(np.count_nonzero(fresh))
