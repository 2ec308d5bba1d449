"""Splits: which rows may be trained on and which measure, so that nothing leaks between them.

Rows whose questions are near-duplicates form a cluster, and a cluster never straddles train, dev
and test. What was committed stays: a later row that would put a committed row's cluster in two
splits is `held`, excluded from both training and evaluation, and listed. All of it is decided by
hashes and committed placements alone, never by the order of rows or files.

Rows are columns here, a number each, so that ten million of them take a second and little memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from registry.datasets.duplicates.hash_index import HashIndex, as_texts, hashes_of
from registry.datasets.formats.content import HELD
from registry.datasets.versions.refs import refs_batches, refs_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.datasets.formats.arrays import (
        BoolArray,
        HashArray,
        Int32Array,
        Int64Array,
        Uint8Array,
    )
    from registry.store.objects import Store


CODED = ("train", "dev", "test", HELD)
"""Splits by code, the weaker first: of a row in several files, and of a cluster."""
TRAIN, DEV, TEST, HELD_CODE = range(4)
NOWHERE = 255
"""The code of a row that was not committed before."""

_HELD_OUT_DEFAULT = 1000  # rows of a split that nobody sized, and at most
_HELD_OUT_SHARE = 0.1  # this share of the dataset
_CLUSTER_DIGITS = 15  # 60 bits of a hash: fits a BIGINT, no collision in 10 M clusters
_AT_ONCE = 100_000  # hashes that are texts at a time
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class PlacedRows:
    """Rows to place, each content once, by column.

    Attributes:
        hashes: uint64 [n, 4].
        given: code of the strongest split among the files that a row is in.
        committed: code of the split where it was committed, or NOWHERE.
        clusters: the number of its committed cluster; of no account where there is none.
    """

    hashes: HashArray
    given: Uint8Array
    committed: Uint8Array
    clusters: Int64Array


@dataclass(frozen=True, slots=True)
class Target:
    """How many rows to carve out of train for one split."""

    split: Literal["dev", "test"]
    rows: int


@dataclass(frozen=True, slots=True)
class Leak:
    """Row `position` wanted to be in `wanted`, near rows in `against`, and is held."""

    position: int
    wanted: str
    against: str


@dataclass(frozen=True)
class Assignment:
    """Code of the split and number of the cluster of each row, and the rows held for a leak."""

    splits: Uint8Array
    clusters: Int64Array
    leaks: tuple[Leak, ...]


def target_rows(size: float | None, total: int) -> int:
    """Return how many of `total` rows a split gets: a share (float), a count (int), or neither."""
    if size is None:
        return min(_HELD_OUT_DEFAULT, int(total * _HELD_OUT_SHARE))
    return size if isinstance(size, int) else int(total * size)


def cluster_number(row_hash: str) -> int:
    """Return the number of a cluster whose smallest hash is `row_hash`."""
    return int(row_hash[:_CLUSTER_DIGITS], 16)


def assign(
    rows: PlacedRows, groups: Int32Array | Int64Array, targets: Sequence[Target]
) -> Assignment:
    """Place every row.

    Args:
        rows: the rows of the new version.
        groups: for each row, the number of its group of near-duplicates.
        targets: the splits to carve out of rows given as train.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    count, known = len(first), rows.committed != NOWHERE
    homes = _homes(rows, group, count)
    bridged = (homes & (homes - np.uint8(1))) != 0  # more than one bit
    own = _clusters(rows, group, count)
    splits = np.where(known, rows.committed, rows.given)
    clusters = np.where(known & bridged[group], rows.clusters, own[group])
    elsewhere = (homes[group] >> rows.given) & 1 == 0
    held = ~known & (bridged[group] | elsewhere)
    splits[held] = HELD_CODE
    strongest = np.array([0, *(number.bit_length() - 1 for number in range(1, 8))], np.uint8)
    leaks = tuple(
        Leak(place, CODED[rows.given[place]], CODED[strongest[homes[group[place]]]])
        for place in np.flatnonzero(held).tolist()
    )
    wanted = _still_wanted(targets, splits)
    if wanted:
        free = homes == 1 << TRAIN
        free[group[known]] = False
        _carve(rows.hashes, group, free, wanted, splits)
    return Assignment(splits, clusters, leaks)


def _homes(rows: PlacedRows, group: Int64Array, count: int) -> Uint8Array:
    """Return for each group the splits it is at home in, a bit each.

    Where rows of it were committed (and not held), theirs; else the strongest that was given.
    """
    homes = np.zeros(count, np.uint8)
    fixed = rows.committed < HELD_CODE
    np.bitwise_or.at(homes, group[fixed], np.left_shift(1, rows.committed[fixed], dtype=np.uint8))
    strongest = np.zeros(count, np.uint8)
    np.maximum.at(strongest, group, rows.given)
    return np.where(homes == 0, np.left_shift(1, strongest, dtype=np.uint8), homes)


def _clusters(rows: PlacedRows, group: Int64Array, count: int) -> Int64Array:
    """Return the number of each group: the smallest committed one, else that of its hashes."""
    known = rows.committed != NOWHERE
    old, new = np.full(count, _FAR), np.full(count, _FAR)
    np.minimum.at(old, group[known], rows.clusters[known])
    digits = np.uint64(64 - 4 * _CLUSTER_DIGITS)
    np.minimum.at(new, group, (rows.hashes[:, 0] >> digits).astype(np.int64))
    return np.where(old < _FAR, old, new)


def _still_wanted(targets: Sequence[Target], splits: Uint8Array) -> dict[int, int]:
    """Return what is left to carve, test first, after what was committed or given."""
    counts = np.bincount(splits, minlength=len(CODED))
    wanted = {CODED.index(t.split): t.rows - int(counts[CODED.index(t.split)]) for t in targets}
    return {code: wanted[code] for code in (TEST, DEV) if wanted.get(code, 0) > 0}


def _carve(
    hashes: HashArray,
    group: Int64Array,
    free: BoolArray,
    wanted: dict[int, int],
    splits: Uint8Array,
) -> None:
    """Fill each wanted split with whole groups, in the order of their salted smallest hashes.

    The salt keeps the choice apart from every other choice that is made by the plain hash. A
    group that is larger than what is left is passed over.
    """
    rows = np.flatnonzero(free[group])
    rows = rows[np.argsort(group[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(group[rows], prepend=-1))
    sizes = np.diff(starts, append=len(rows))
    smallest = _smallest(hashes[rows], starts, sizes)
    order = _in_order(np.column_stack((_salted(smallest), smallest))).tolist()
    for code, most in wanted.items():
        left, passed = most, []
        for place, number in enumerate(order):
            if left == 0:
                passed += order[place:]
                break
            if sizes[number] > left:
                passed.append(number)
                continue
            splits[rows[starts[number] : starts[number] + sizes[number]]] = code
            left -= int(sizes[number])
        order = passed


def _smallest(hashes: HashArray, starts: Int64Array, sizes: Int64Array) -> HashArray:
    """Return the smallest hash of each group; `starts` and `sizes` say where groups are."""
    if not len(starts) or len(starts) == len(hashes):
        return hashes
    least = np.repeat(np.minimum.reduceat(hashes[:, 0], starts), sizes)
    among = np.flatnonzero(hashes[:, 0] == least)  # one of each group, if no two begin alike
    groups = np.repeat(np.arange(len(starts)), sizes)[among]
    if len(among) > len(starts):
        among = among[np.lexsort((*hashes[among].T[::-1], groups))]
        groups = np.repeat(np.arange(len(starts)), sizes)[among]
    return hashes[among[np.flatnonzero(np.diff(groups, prepend=-1))]]


def _in_order(numbers: NDArray[np.uint64]) -> Int64Array:
    """Return the order of rows of numbers [n, m] by the first, then the next and so on."""
    order = np.argsort(numbers[:, 0], kind="stable")
    first = numbers[order, 0]
    if (first[1:] == first[:-1]).any():
        return np.lexsort(numbers.T[::-1])
    return order


def _salted(hashes: HashArray) -> NDArray[np.uint64]:
    """Return the first 64 bits of each hash's own salted hash."""
    found = np.empty(len(hashes), ">u8")
    for begin in range(0, len(hashes), _AT_ONCE):
        texts = as_texts(hashes[begin : begin + _AT_ONCE]).to_pylist()
        digests = [hashlib.sha256(f"split:{text}".encode()).digest()[:8] for text in texts]
        found[begin : begin + len(texts)] = np.frombuffer(b"".join(digests), ">u8")
    return found.astype(np.uint64)


class Placements:
    """Where rows were committed: the first split that a row had, and its latest cluster."""

    def __init__(self) -> None:
        """Begin empty."""
        self._index = HashIndex()
        self._splits: Uint8Array = np.empty(0, np.uint8)
        self._clusters: Int64Array = np.empty(0, np.int64)

    def add(self, hashes: HashArray, splits: Uint8Array, numbers: Int64Array) -> None:
        """Remember a later version's rows."""
        places, first = self._index.place(hashes)
        self._splits = np.concatenate((self._splits, splits[first]))
        self._clusters = np.concatenate((self._clusters, numbers[first]))
        self._clusters[places] = numbers

    def all(self) -> tuple[HashArray, Uint8Array, Int64Array]:
        """Return hash, split and cluster of every row."""
        return self._index.hashes, self._splits, self._clusters

    def of(self, hashes: HashArray) -> tuple[Uint8Array, Int64Array]:
        """Return code of the split, NOWHERE for a new row, and cluster of each row."""
        places = self._index.find(hashes)
        splits, numbers = np.full(len(hashes), NOWHERE, np.uint8), np.zeros(len(hashes), np.int64)
        there = places >= 0
        splits[there] = self._splits[places[there]]
        numbers[there] = self._clusters[places[there]]
        return splits, numbers


def committed_placements(store: Store, version_ids: Sequence[str]) -> Placements:
    """Return where rows were placed, over a dataset's earlier versions, oldest first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    placed = Placements()
    codes = pa.array(CODED)
    for version_id in version_ids:
        paths = refs_paths(store, store.get("dataset_version", version_id))
        for batch in refs_batches(paths, ["row_hash", "split", "cluster"]):
            table = batch.combine_chunks()
            splits = pc.index_in(table["split"].combine_chunks(), value_set=codes).to_numpy()
            hashes = hashes_of(table["row_hash"].combine_chunks())
            placed.add(hashes, splits.astype(np.uint8), table["cluster"].to_numpy())
    return placed
