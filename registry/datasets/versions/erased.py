"""The record of erased rows: that they are gone, by number and by a keyed hash, never what.

An `erasure` object holds `erased.parquet` (row_uid, keyed_hash) and in its identity the key. The
keyed hash tells an erased row that is read again; docs/guide/erasing.md says what it protects from.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from registry.catalog.sql import fill
from registry.store.filenames import ERASED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from registry.catalog.catalog import Catalog
    from registry.store.kinds import ErasureMeta
    from registry.store.manifest import Manifest
    from registry.store.objects import Store

KIND = "erasure"
REDACTED = "redacted"
"""The role of an object that an erasure took rows out of."""

_KEY_BYTES = 32


class ErasedRows:
    """The rows that were erased from a store; `row_hash in erased` tells one that comes again."""

    def __init__(self, known: Mapping[bytes, frozenset[bytes]], uids: frozenset[int]) -> None:
        """Remember key -> keyed hashes, and the uids."""
        self._known = known
        self.uids = uids

    def __contains__(self, row_hash: str) -> bool:
        """Whether the row of this hash was erased."""
        return any(keyed_hash(key, row_hash) in hashes for key, hashes in self._known.items())

    def among(self, row_hashes: Iterable[str]) -> list[bool]:
        """Return for each of these hashes whether its row was erased."""
        return [one in self for one in row_hashes]

    def __len__(self) -> int:
        """How many were erased."""
        return len(self.uids)


def keyed_hash(key: bytes, row_hash: str) -> bytes:
    """Return the hash of a row's hash under a key."""
    return hashlib.blake2b(row_hash.encode("ascii"), key=key, digest_size=_KEY_BYTES).digest()


def store_key(erasures: Sequence[Manifest[ErasureMeta]]) -> bytes:
    """Return the key of a store's erasures: one for all, so that a row is hashed once; or a new."""
    if erasures:
        return bytes.fromhex(erasures[0].decided_by("key"))
    return secrets.token_bytes(_KEY_BYTES)


def erased_rows(store: Store, erasures: Sequence[Manifest[ErasureMeta]]) -> ErasedRows:
    """Return the rows that were erased from a store by these erasures."""
    import pyarrow.parquet as pq

    known: dict[bytes, set[bytes]] = {}
    uids: set[int] = set()
    for manifest in erasures:
        with pq.ParquetFile(store.get(KIND, manifest.id).path / ERASED) as file:
            columns = file.read().to_pydict()
        known.setdefault(bytes.fromhex(manifest.decided_by("key")), set()).update(
            columns["keyed_hash"]
        )
        uids.update(columns["row_uid"])
    return ErasedRows({k: frozenset(v) for k, v in known.items()}, frozenset(uids))


def write_erased(path: Path, rows: Iterable[tuple[int, bytes]]) -> None:
    """Write `erased.parquet`: row_uid and keyed hash, in the order of uids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(rows)
    table = pa.table(
        {
            "row_uid": pa.array([uid for uid, _ in ordered], pa.int64()),
            "keyed_hash": pa.array([value for _, value in ordered], pa.binary(_KEY_BYTES)),
        }
    )
    pq.write_table(table, path, compression="zstd")


def erasures_from(catalog: Catalog, object_ids: Iterable[str]) -> list[Manifest[ErasureMeta]]:
    """Return the erasures that took rows out of one of these objects, oldest first."""
    from registry.store.kinds import ErasureMeta

    wanted = tuple(object_ids)
    if not wanted:
        return []
    with catalog.reading() as connection:
        found = connection.execute(
            fill(
                "SELECT DISTINCT child FROM catalog.edges WHERE role = ? AND parent IN ?",
                [REDACTED, wanted],
            )
        ).fetchall()
    ids = {row[0] for row in found}
    return [one for one in catalog.committed(ErasureMeta) if one.id in ids] if ids else []


def erased_by_dataset(catalog: Catalog) -> dict[str, list[str]]:
    """Return dataset -> ids of the erasures that took rows out of a version of it, in order.

    They are part of what decides its next version. Datasets without any are left out.
    """
    from registry.catalog.lists import dataset_names
    from registry.store.kinds import ErasureMeta

    erasures = catalog.committed(ErasureMeta)
    if not erasures:
        return {}
    redacted = {
        erasure.id: {parent.id for parent in erasure.parents if parent.role == REDACTED}
        for erasure in erasures
    }
    found: dict[str, set[str]] = {}
    for one in dataset_names(catalog):
        for erasure_id, objects in redacted.items():
            if one.version_id in objects:
                found.setdefault(one.name, set()).add(erasure_id)
    return {name: sorted(ids) for name, ids in found.items()}


def why_not_reproducible(catalog: Catalog, selection_id: str) -> str | None:
    """Return why what was trained on a selection can't be trained again; None if it can."""
    found = erasures_from(catalog, [selection_id])
    if not found:
        return None
    rows = sum(one.meta.redacted.get(selection_id, 0) for one in found)
    day = found[-1].meta.created_at[:10]
    counted = "a row" if rows == 1 else f"{rows} rows"
    return f"{counted} that it was trained on {'was' if rows == 1 else 'were'} erased on {day}"
