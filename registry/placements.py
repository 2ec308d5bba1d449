"""Where a dataset's rows were put before: a committed split never moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.hash_index import HashIndex, hashes_of
from registry.refs import refs_batches, refs_paths
from registry.splits import CODED, NOWHERE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.arrays import HashArray, Int64Array, Uint8Array
    from registry.store import Store


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
