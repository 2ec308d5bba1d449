"""Deduplicated contents in the store: `rows` objects that the versions of all datasets share."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from registry.datasets.duplicates.hash_index import HashIndex, as_texts, hashes_of
from registry.datasets.formats.content import content_schema
from registry.store.filenames import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    import pyarrow as pa

    from registry.catalog.catalog import Catalog
    from registry.datasets.formats.arrays import BoolArray, HashArray, Int64Array
    from registry.datasets.versions.append_index import RowIndex
    from registry.store.kinds import RowsMeta
    from registry.store.manifest import Manifest
    from registry.store.objects import ObjectRef, Store

SCHEMA = 1
"""Of rows and refs; part of every version's id."""

_GROUP = 100_000  # rows read at a time
_AT_ONCE = 1 << 26  # bytes of contents that are written at a time
_ROW_GROUP = 1 << 14  # rows: who looks for a few reads the groups that they are in
_REPEATED = (
    "kind",
    *(f"{turns}.list.element.role" for turns in ("messages", "chosen", "rejected")),
)


class StoredContents:
    """The contents of a store: the uid of each, and the `rows` object that it is in."""

    def __init__(self, version: RowIndex | None = None) -> None:
        """Begin with the contents of a version, or with none."""
        self._version = version
        self._index = HashIndex()
        self._uids: list[Int64Array] = [np.empty(0, np.int64)]
        self._objects: list[Int64Array] = [np.empty(0, np.int64)]
        self._ids: list[str] = []
        self.newest: tuple[str, ...] = ()  # what `add_newest` named

    def find(self, hashes: HashArray) -> Int64Array:
        """Return the uid of each content, -1 where there is none."""
        places = self._index.find(hashes)
        if len(self._uids) > 1:
            self._uids = [np.concatenate(self._uids)]
        uids = np.full(len(hashes), -1, np.int64)
        uids[places >= 0] = self._uids[0][places[places >= 0]]
        if self._version is not None:
            left = np.flatnonzero(places < 0)
            uids[left] = self._version.uids_of(self._version.find(hashes[left]))
        return uids

    def add(self, rows_id: str, hashes: HashArray, uids: Int64Array) -> None:
        """Remember contents of one object; one that is there already keeps its place."""
        if not self._ids or self._ids[-1] != rows_id:
            self._ids.append(rows_id)
        _, first = self._index.place(hashes)
        self._uids.append(uids[first])
        self._objects.append(np.full(int(first.sum()), len(self._ids) - 1, np.int64))

    def objects_of(self, hashes: HashArray) -> list[str]:
        """Return the `rows` objects that hold these contents, in the order of their first use.

        What is not known otherwise is in the newest one, which `add_newest` named.
        """
        objects = np.concatenate([*self._objects, [len(self._ids) - 1]])  # that of place -1
        numbers, first = np.unique(objects[self._index.find(hashes)], return_index=True)
        return [self._ids[number] for number in numbers[np.argsort(first)].tolist()]

    def wholly_in(self, hashes: HashArray) -> list[str]:
        """Return the `rows` objects that hold none but these contents."""
        if not len(self._index):
            return list(self._ids)
        objects = np.concatenate(self._objects)
        places = self._index.find(hashes)
        used = np.bincount(objects[places[places >= 0]], minlength=len(self._ids))
        there = np.bincount(objects, minlength=len(self._ids))
        return [one for one, a, b in zip(self._ids, used, there, strict=True) if a == b]

    def add_newest(self, rows_id: str) -> None:
        """Remember an object that holds what is not known yet; nothing is added after it."""
        self._ids.append(rows_id)
        self.newest = (rows_id,)


def known_contents(
    store: Store, rows: Iterable[Manifest[RowsMeta]], version: RowIndex | None = None
) -> StoredContents:
    """Return where each content is, over these `rows` objects.

    Those that have nothing but what is in `version` aren't read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = StoredContents(version)
    for manifest in rows:
        if version is not None and manifest.id in version.facts.contents:
            continue
        path = store.get("rows", manifest.id).path / ROWS
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_GROUP, columns=["row_hash", "row_uid"]):
                table = pa.table(batch)
                hashes = hashes_of(table["row_hash"].combine_chunks())
                known.add(manifest.id, hashes, table["row_uid"].to_numpy())
    return known


@dataclass(frozen=True)
class _PendingContents:
    """New contents that are not written yet: `new` says which of `uids` are theirs."""

    hashes: HashArray
    table: pa.Table
    uids: Int64Array
    new: BoolArray


class ContentWriter:
    """Writes new contents to a draft's `rows.parquet`; used as a context manager."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        rows: Iterable[Manifest[RowsMeta]],
        version: RowIndex | None = None,
    ) -> None:
        """Find out what is known, in `version` and beside it; nothing is made until one is new.

        `rows` are the manifests of all committed `rows` objects.
        """
        self._store = store
        self._catalog = catalog
        self.known = known_contents(store, rows, version)
        self._first = self._last = -1  # uids
        self._rows = 0
        self._waiting: list[_PendingContents] = []
        self._bytes = 0
        self._hashes = hashlib.sha256()
        self._stack = ExitStack()
        self._draft: Path | None = None
        self._file: Any = None

    def __enter__(self) -> Self:
        """Nothing to open yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop a draft that was not put."""
        if self._file is not None:
            self._file.close()
        self._stack.__exit__(kind, error, trace)

    def take(self, hashes: HashArray, table: pa.Table) -> Int64Array:
        """Take contents, of which those are written that the store hasn't.

        Returns:
            The uid of each. New ones have theirs once `flush` was called, in this same array.

        Args:
            hashes: of the contents, none of them twice, and none that was taken before.
            table: what `rows.parquet` says of them, but for the uid.
        """
        uids = self.known.find(hashes)
        new = uids < 0
        if new.any():
            table = table if new.all() else table.filter(new)
            self._waiting.append(_PendingContents(hashes[new], table, uids, new))
            self._bytes += table.nbytes
            if self._bytes >= _AT_ONCE:
                self.flush()
        return uids

    def flush(self) -> None:
        """Give uids to what was new, and write it: many rows in one reservation and row group."""
        import pyarrow as pa

        if not self._waiting:
            return
        hashes = np.concatenate([part.hashes for part in self._waiting])
        first = self._catalog.reserve_uids(len(hashes))
        uids = np.arange(first, first + len(hashes))
        for part in self._waiting:
            part.uids[part.new] = np.arange(first, first + len(part.hashes))
            first += len(part.hashes)
        self._first = self._first if self._rows else int(uids[0])
        self._last, self._rows = int(uids[-1]), self._rows + len(uids)
        self._hashes.update(as_texts(hashes).buffers()[2])
        self._write(uids, pa.concat_tables([part.table for part in self._waiting]))
        self._waiting, self._bytes = [], 0

    def put(self) -> ObjectRef | None:
        """Put what was new into the store, uncommitted; None when nothing was."""
        self.flush()
        if self._draft is None:
            return None
        self._file.close()
        # The uids are in the identity: a draft that was put but never acknowledged has other uids
        # than a second attempt reserves, and must not be taken for it.
        first, last = self._first, self._last
        identity = {
            "schema": SCHEMA,
            "rows": self._hashes.hexdigest(),
            "uids": [first, last],
        }
        from registry.store.kinds import RowsMeta

        meta = RowsMeta(rows=self._rows)
        ref = self._store.put("rows", self._draft, identity=identity, meta=meta)
        self.known.add_newest(ref.id)
        return ref

    def _write(self, uids: Int64Array, table: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._draft is None:
            self._draft = self._stack.enter_context(self._store.draft())
            path = self._draft / ROWS
            self._file = pq.ParquetWriter(
                path, content_schema(), compression="zstd", use_dictionary=list(_REPEATED)
            )
        table = table.add_column(0, "row_uid", pa.array(uids))
        table = table.select(content_schema().names).cast(content_schema())
        self._file.write_table(table, row_group_size=_ROW_GROUP)
