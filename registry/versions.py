"""Writing a dataset version: content that is new goes to a `rows` object, the rest refers to it.

The version's id is decided by what its rows say and where they are placed; uids, sources and
paths are beside it, so that the same content has the same id on any machine.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from registry.duplicates import clusters
from registry.errors import StoreError
from registry.hashing import digest
from registry.rows import HELD, SPLITS, content_record, content_schema, refs_schema, rejects_schema
from registry.splits import Candidate, Placement, Target, assign, target_rows
from registry.store import ObjectRef, Parent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import pyarrow as pa

    from registry.catalog import Catalog
    from registry.collect import Collected, Entry
    from registry.datasets import DatasetSpec
    from registry.rows import Content
    from registry.splits import Assignment
    from registry.store import Store

_KIND = "dataset_version"
_SCHEMA = 1  # of rows and refs; part of every version's id
_BATCH = 20_000  # contents kept in memory before they are written


@dataclass(frozen=True, slots=True)
class Known:
    """A content that the store has: its uid and the `rows` object it is in."""

    uid: int
    rows_id: str


@dataclass(frozen=True)
class Written:
    """A version in the store, uncommitted: every object to commit, parents first, and its facts."""

    version: ObjectRef
    objects: tuple[ObjectRef, ...]
    facts: dict[str, Any]


def known_contents(store: Store, catalog: Catalog) -> dict[str, Known]:
    """Return row_hash -> where it is, over every committed `rows` object."""
    import pyarrow.parquet as pq

    known: dict[str, Known] = {}
    for manifest in catalog.committed("rows"):
        path = store.get("rows", manifest["id"]).path / "rows.parquet"
        with pq.ParquetFile(path) as file:
            table = file.read(columns=["row_hash", "row_uid"])
        pairs = zip(table["row_hash"].to_pylist(), table["row_uid"].to_pylist(), strict=True)
        for row_hash, uid in pairs:
            known.setdefault(row_hash, Known(uid, manifest["id"]))
    return known


def committed_placements(store: Store, version_ids: Sequence[str]) -> dict[str, Placement]:
    """Return row_hash -> where it was placed, over a dataset's earlier versions, oldest first."""
    import pyarrow.parquet as pq

    placed: dict[str, Placement] = {}
    for version_id in version_ids:
        path = store.get(_KIND, version_id).path / "refs.parquet"
        with pq.ParquetFile(path) as file:
            columns = file.read(columns=["row_hash", "split", "cluster"]).to_pydict()
        for row_hash, split, cluster in zip(*columns.values(), strict=True):
            first = placed.get(row_hash)
            placed[row_hash] = Placement(first.split if first else split, cluster)
    return placed


class ContentWriter:
    """Writes new contents to a draft's `rows.parquet` in batches; used as a context manager."""

    def __init__(self, store: Store, catalog: Catalog, known: dict[str, Known]) -> None:
        """Remember what is known; nothing is made until a content is new."""
        self._store = store
        self._catalog = catalog
        self._known = known
        self._pending: list[tuple[str, Content]] = []
        self._uids: dict[str, int] = {}
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

    def take(self, row_hash: str, content: Content) -> None:
        """Write this content unless the store has it."""
        if row_hash not in self._known:
            self._pending.append((row_hash, content))
            if len(self._pending) >= _BATCH:
                self._flush()

    def put(self) -> ObjectRef | None:
        """Put what was new into the store, uncommitted; None when nothing was."""
        self._flush()
        if self._draft is None:
            return None
        self._file.close()
        # The uids are in the identity: a draft that was put but never acknowledged has other uids
        # than a second attempt reserves, and must not be taken for it.
        first, last = min(self._uids.values()), max(self._uids.values())
        identity = {
            "schema": _SCHEMA,
            "rows": self._hashes.hexdigest(),
            "uids": [first, last],
        }
        meta = {"rows": len(self._uids)}
        ref = self._store.put("rows", self._draft, identity=identity, meta=meta)
        self._known.update((h, Known(uid, ref.id)) for h, uid in self._uids.items())
        return ref

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._pending:
            return
        first = self._catalog.reserve_uids(len(self._pending))
        lines = []
        for uid, (row_hash, content) in enumerate(self._pending, first):
            lines.append(content_record(uid, row_hash, content))
            self._uids[row_hash] = uid
            self._hashes.update(row_hash.encode())
        if self._draft is None:
            self._draft = self._stack.enter_context(self._store.draft())
            path = self._draft / "rows.parquet"
            self._file = pq.ParquetWriter(path, content_schema(), compression="zstd")
        self._file.write_table(pa.Table.from_pylist(lines, content_schema()))
        self._pending.clear()


def place(found: Collected, spec: DatasetSpec, committed: Mapping[str, Placement]) -> Assignment:
    """Decide split and cluster of every content that was found."""
    entries = list(found.entries.values())
    candidates = [Candidate(e.row_hash, e.given, committed.get(e.row_hash)) for e in entries]
    sizes = {"dev": spec.split.dev, "test": spec.split.test}
    targets = [Target(s, target_rows(sizes[s], len(entries))) for s in spec.carved]
    return assign(candidates, clusters([entry.text for entry in entries]), targets)


def write_version(
    store: Store,
    name: str,
    spec: DatasetSpec,
    found: Collected,
    placed: Assignment,
    known: Mapping[str, Known],
) -> Written:
    """Put the version that `found` and `placed` make; every content is in `known`."""
    entries = list(found.entries.values())
    lines = [
        _ref_line(entry, known[entry.row_hash].uid, split, cluster, name, spec)
        for entry, split, cluster in zip(entries, placed.splits, placed.clusters, strict=True)
    ]
    identity = {"schema": _SCHEMA, "rows": _digest(lines), "license": spec.license}
    facts = _facts(name, spec, found, placed)
    version = _already_there(store, identity)
    if version is None:
        needed = dict.fromkeys(known[row_hash].rows_id for row_hash in found.entries)
        parents = [Parent(rows_id, "rows") for rows_id in needed]
        with store.draft() as draft:
            _write(draft / "refs.parquet", lines, refs_schema())
            if found.rejects:
                _write(draft / "rejects.parquet", _reject_lines(found), rejects_schema())
            version = store.put(_KIND, draft, identity=identity, parents=parents, meta=facts)
    named = store.manifest(version)["parents"]
    contents = [store.get("rows", parent["id"]) for parent in named]
    return Written(version, (*contents, version), facts)


def _already_there(store: Store, identity: Mapping[str, Any]) -> ObjectRef | None:
    """Return this very version if it is in the store, acknowledged or not.

    A call that was killed before its commit leaves one, whose uids are those of the `rows` objects
    that it names: they are kept together.
    """
    try:
        return store.get(_KIND, digest({"kind": _KIND, "identity": dict(identity)}))
    except StoreError:
        return None


def _write(path: Path, lines: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(lines), schema), path, compression="zstd")


def _ref_line(
    entry: Entry, uid: int, split: str, cluster: int, name: str, spec: DatasetSpec
) -> dict[str, Any]:
    first = entry.sources[0]
    return {
        "row_uid": uid,
        "row_hash": entry.row_hash,
        "split": split,
        "tags": [],
        "cluster": cluster,
        "source": name,
        "source_file": first.file,
        "source_line": first.line,
        "sources": [{"file": s.file, "line": s.line, "split": s.split} for s in entry.sources],
        "license": spec.license,
        "meta": entry.meta,
    }


def _digest(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of the ordered rows: hash, split, tags and the columns kept beside them."""
    total = hashlib.sha256()
    for line in lines:
        parts = [line["row_hash"], line["split"], line["tags"], line["meta"]]
        total.update(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode())
        total.update(b"\n")
    return total.hexdigest()


def _facts(name: str, spec: DatasetSpec, found: Collected, placed: Assignment) -> dict[str, Any]:
    """Return what the manifest says of the version; counts are of rows."""
    counts = {split: placed.splits.count(split) for split in (*SPLITS, HELD)}
    return {
        "name": name,
        "rows": len(found.entries),
        "records": found.records,
        "rejects": len(found.rejects),
        "splits": {split: count for split, count in counts.items() if count},
        "clusters": len(set(placed.clusters)),
        "duplicates": sum(len(e.sources) - 1 for e in found.entries.values()),
        "leaks": {"exact": found.leaked, "near": len(placed.leaks)},
        "license": spec.license,
    }


def _reject_lines(found: Collected) -> list[dict[str, Any]]:
    return [
        {"stage": "ingest", "reason": r.text, "source_file": r.file, "source_line": r.line}
        for r in found.rejects
    ]
