"""The index of a dataset's newest version, kept so that an append needs not read the version.

It lies in the store's cache, a folder for each version: whoever deletes it only makes the next
append a whole ingest. The rows come in parts, one for each file of refs. Part 0 of 3 rows is

    hashes-0.npy  uint64 [3, 4]   in the order of the rows
    keys-0.npy    uint64 [3]      the hashes' first numbers, sorted
    order-0.npy   int32 [3]       the row of each key
    uids-0.npy    int64 [3]       row uids
    bands-0       192 bytes a row (duplicates/bands.py)

and for all rows there is `groups.npy`, int32 [rows], the first row of each one's cluster: 248 bytes
a row. The arrays are memory-mapped: what nobody looks at isn't read. A find is a binary search in
`keys` of each part, settled by the whole hash (as in duplicates/hash_index.py). An append links the
older parts and adds its own; parts grow as append_version.py says, so there are about log2(rows).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.datasets.duplicates.bands import Bands
from registry.errors import StoreError
from registry.store.held import digest_of, hold
from registry.store.kept import SUFFIX, keep, kept
from registry.store.objects import share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from registry.datasets.formats.arrays import (
        HashArray,
        Int32Array,
        Int64Array,
        KeyArray,
        Uint8Array,
    )
    from registry.store.objects import Store

FORMAT = 2
_FACTS = f"index{SUFFIX}"
_ARRAYS = ("hashes", "keys", "order", "uids")  # of each part


@dataclass(frozen=True)
class IndexFacts:
    """What an index says in words.

    Attributes:
        dataset: its name.
        key: what the version was made from; the same rows may come from other files as well.
        parts: rows of each part.
        blocks: digests of the version's full blocks of rows.
        contents: `rows` objects that hold nothing but rows of the version.
        covers: versions of the dataset whose rows are in this one, or among the gone.
    """

    dataset: str
    key: str
    parts: tuple[int, ...]
    blocks: tuple[str, ...]
    contents: frozenset[str]
    covers: frozenset[str]


@dataclass(frozen=True)
class FormerRows:
    """Rows of a dataset's earlier versions that aren't in its newest: where they were put."""

    hashes: HashArray
    splits: Uint8Array
    clusters: Int64Array


class RowIndex:
    """The index of one version; places are positions among its rows."""

    def __init__(self, folder: Path, facts: IndexFacts) -> None:
        """Map what is looked into; bands and groups are read when they are asked for."""
        self.folder = folder
        self.facts = facts
        self.rows = sum(facts.parts)
        self._parts = [
            {name: _mapped(folder / f"{name}-{number}.npy") for name in _ARRAYS}
            for number in range(len(facts.parts))
        ]

    @property
    def groups(self) -> Int32Array:
        """The group of each row: the position of its first."""
        return np.asarray(np.load(self.folder / "groups.npy", allow_pickle=False), np.int32)

    @property
    def former(self) -> FormerRows:
        """Rows of earlier versions that aren't in this one."""
        with np.load(self.folder / "gone.npz", allow_pickle=False) as found:
            return FormerRows(found["hashes"], found["splits"], found["clusters"])

    @property
    def bands(self) -> list[Bands]:
        """The bands of each part."""
        return [
            Bands(self.folder / f"bands-{number}", rows)
            for number, rows in enumerate(self.facts.parts)
        ]

    def find(self, hashes: HashArray) -> Int64Array:
        """Return the place of each hash, -1 for one that isn't there."""
        places = np.full(len(hashes), -1, np.int64)
        ordered = np.argsort(hashes[:, 0], kind="stable")  # near ones are looked for together
        begin = 0
        for part, rows in zip(self._parts, self.facts.parts, strict=True):
            left = ordered[places[ordered] < 0]
            at = np.searchsorted(part["keys"], hashes[left, 0])
            while len(left):
                near = at < rows
                left, at = left[near], at[near]
                near = part["keys"][at] == hashes[left, 0]
                left, at = left[near], at[near]
                where = part["order"][at]
                same = (part["hashes"][where] == hashes[left]).all(axis=1)
                places[left[same]] = where[same] + begin
                left, at = left[~same], at[~same] + 1
            begin += rows
        return places

    def uids_of(self, places: Int64Array) -> Int64Array:
        """Return the uid of each place, -1 for place -1."""
        found = np.full(len(places), -1, np.int64)
        for part, mine, at in self._within(places):
            found[mine] = part["uids"][at]
        return found

    def part(self, number: int) -> tuple[HashArray, Int64Array, KeyArray]:
        """Return hashes, uids and all bands of a part."""
        arrays = self._parts[number]
        return np.array(arrays["hashes"]), np.array(arrays["uids"]), self.bands[number].read()

    def _within(
        self, places: Int64Array
    ) -> Iterator[tuple[dict[str, Any], Int64Array, Int64Array]]:
        """Yield each part's arrays, which of the places are in it, and where."""
        begin = 0
        for part, rows in zip(self._parts, self.facts.parts, strict=True):
            mine = np.flatnonzero((places >= begin) & (places < begin + rows))
            yield part, mine, places[mine] - begin
            begin += rows


def open_index(store: Store, version_id: str) -> RowIndex | None:
    """Return the index of a version; None when there is none, or one whose bytes are others now."""
    folder = _home(store) / version_id
    try:
        facts = check_index(folder)
    except StoreError:
        return None
    return None if facts is None else RowIndex(folder, facts)


def check_index(folder: Path) -> IndexFacts | None:
    """Return what an index in a folder says; None where there is none of this format.

    Raises:
        StoreError: one of its files isn't what was written.
    """
    said = _said(folder)
    if said is None:
        return None
    hold(folder, said["files"])
    return IndexFacts(
        said["dataset"],
        said["key"],
        tuple(said["parts"]),
        tuple(said["blocks"]),
        frozenset(said["contents"]),
        frozenset(said["covers"]),
    )


def indexes(store: Store) -> list[Path]:
    """Return the folders of all indexes."""
    home = _home(store)
    return sorted(home.iterdir()) if home.is_dir() else []


def _said(folder: Path) -> dict[str, Any] | None:
    data = kept(folder / _FACTS)
    said: dict[str, Any] = {} if data is None else json.loads(data)
    return said if said.get("format") == FORMAT else None


def add_part(draft: Path, number: int, hashes: HashArray, uids: Int64Array) -> None:
    """Write what an index has of a part's rows, but for their bands."""
    order = np.argsort(hashes[:, 0], kind="stable").astype(np.int32)
    arrays = {"hashes": hashes, "keys": hashes[order, 0], "order": order, "uids": uids}
    for name in _ARRAYS:
        np.save(draft / f"{name}-{number}.npy", arrays[name], allow_pickle=False)


def share_part(index: RowIndex, draft: Path, number: int) -> None:
    """Take a part over from another index."""
    for name in (*(f"{name}-{number}.npy" for name in _ARRAYS), f"bands-{number}"):
        share(index.folder / name, draft / name)


def publish(
    store: Store,
    draft: Path,
    version_id: str,
    facts: IndexFacts,
    groups: Int32Array,
    former: FormerRows,
    *,
    stay: Sequence[str],
) -> None:
    """Give a draft's index its place, whole or not at all, and drop the dataset's older ones.

    Args:
        store: in whose cache.
        draft: with every part.
        version_id: of the version.
        facts: about it.
        groups: of its rows.
        former: rows that it hasn't.
        stay: versions whose index stays; the version may yet fail to be committed.
    """
    np.save(draft / "groups.npy", groups.astype(np.int32), allow_pickle=False)
    np.savez(
        draft / "gone.npz", hashes=former.hashes, splits=former.splits, clusters=former.clusters
    )
    said = asdict(facts) | {"contents": sorted(facts.contents), "covers": sorted(facts.covers)}
    # What is shared with the index before was hashed when that was opened.
    said["files"] = {path.name: digest_of(path) for path in sorted(draft.iterdir())}
    keep(draft / _FACTS, json.dumps({"format": FORMAT, **said}).encode())
    home = _home(store)
    home.mkdir(parents=True, exist_ok=True)
    for folder in indexes(store):
        other = _said(folder)
        if other is None or (other["dataset"] == facts.dataset and folder.name not in stay):
            shutil.rmtree(folder, ignore_errors=True)
    for path in draft.iterdir():
        if path.stat().st_nlink > 1:
            continue  # another index has it, on the disk
        with path.open("rb") as file:
            os.fsync(file.fileno())
    draft.rename(home / version_id)


def _home(store: Store) -> Path:
    return store.root / "cache" / "rows"


def _mapped(path: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found
