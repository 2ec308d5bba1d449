"""Writing a dataset version: what it says of each row, beside the contents that it refers to.

The version's id is decided by what its rows say and where they are placed; uids, sources and
paths are beside it, so that the same content has the same id on any machine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.contents import SCHEMA
from registry.duplicates import clusters
from registry.errors import StoreError
from registry.hash_index import HashIndex, as_texts, hashes_of
from registry.hashing import digest
from registry.json_strings import bytes_of
from registry.rows import HELD, SPLITS, refs_schema, rejects_schema
from registry.splits import CODED, NOWHERE, Candidates, Target, assign, target_rows
from registry.store import ObjectRef, Parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from registry.collect import Collected
    from registry.contents import Known
    from registry.datasets import DatasetSpec
    from registry.hash_index import Hashes
    from registry.splits import Assignment, Codes, Numbers
    from registry.spool import Texts
    from registry.store import Store

_KIND = "dataset_version"
_GROUP = 100_000  # rows written and read at a time
_DIGESTED = 2_000  # rows digested at a time: their lines are one array, of at most 2 GiB


@dataclass(frozen=True)
class Written:
    """A version in the store, uncommitted: every object to commit, parents first, and its facts."""

    version: ObjectRef
    objects: tuple[ObjectRef, ...]
    facts: dict[str, Any]


class Placements:
    """Where rows were committed: the first split that a row had, and its latest cluster."""

    def __init__(self) -> None:
        """Begin empty."""
        self._index = HashIndex()
        self._splits: Codes = np.empty(0, np.uint8)
        self._clusters: Numbers = np.empty(0, np.int64)

    def add(self, hashes: Hashes, splits: Codes, numbers: Numbers) -> None:
        """Remember a later version's rows."""
        places, first = self._index.place(hashes)
        self._splits = np.concatenate((self._splits, splits[first]))
        self._clusters = np.concatenate((self._clusters, numbers[first]))
        self._clusters[places] = numbers

    def of(self, hashes: Hashes) -> tuple[Codes, Numbers]:
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
    import pyarrow.parquet as pq

    placed = Placements()
    codes = pa.array(CODED)
    for version_id in version_ids:
        path = store.get(_KIND, version_id).path / "refs.parquet"
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_GROUP, columns=["row_hash", "split", "cluster"]):
                splits = pc.index_in(batch["split"], value_set=codes).to_numpy()
                numbers = batch["cluster"].to_numpy()
                placed.add(hashes_of(batch["row_hash"]), splits.astype(np.uint8), numbers)
    return placed


def place(
    found: Collected, texts: Texts, spec: DatasetSpec, committed: Placements, bands: Path
) -> Assignment:
    """Decide split and cluster of every content that was found; `texts` are what each asks.

    The texts' bands are left in the file `bands`.
    """
    splits, numbers = committed.of(found.index.hashes)
    rows = Candidates(found.index.hashes, found.given, splits, numbers)
    sizes = {"dev": spec.split.dev, "test": spec.split.test}
    targets = [Target(s, target_rows(sizes[s], len(found))) for s in spec.carved]
    return assign(rows, clusters(texts, bands), targets)


def write_version(
    store: Store,
    name: str,
    spec: DatasetSpec,
    found: Collected,
    metas: Texts,
    placed: Assignment,
    known: Known,
) -> Written:
    """Put the version that `found` and `placed` make; every content is in `known`.

    Args:
        store: where to.
        name: the dataset's.
        spec: what the spec says of it.
        found: the contents and where they stand.
        metas: the other columns of each, as JSON.
        placed: split and cluster of each.
        known: where the contents are.
    """
    identity = {"schema": SCHEMA, "rows": _digest(found, metas, placed), "license": spec.license}
    facts = _facts(name, spec, found, placed)
    version = _already_there(store, identity)
    if version is None:
        parents = [Parent(one, "rows") for one in known.objects_of(found.index.hashes)]
        with store.draft() as draft:
            _write_refs(draft / "refs.parquet", name, spec, found, metas, placed)
            if found.rejects:
                _write_rejects(draft / "rejects.parquet", found)
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


def _write_refs(
    path: Path,
    name: str,
    spec: DatasetSpec,
    found: Collected,
    metas: Texts,
    placed: Assignment,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = refs_schema()
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for rows, sources in _sources(found):
            count = rows.stop - rows.start
            first = sources.flatten().take(sources.offsets[:-1])
            columns = {
                "row_uid": pa.array(found.uids[rows]),
                "row_hash": as_texts(found.index.hashes[rows]),
                "split": _named(placed.splits[rows]),
                "tags": pa.array([[]] * count, schema.field("tags").type),
                "cluster": pa.array(placed.clusters[rows]),
                "source": pa.repeat(name, count),
                "source_file": first.field("file"),
                "source_line": first.field("line"),
                "sources": sources,
                "license": pa.array([spec.license] * count, pa.string()),
                "meta": metas.array(rows.start, count),
            }
            file.write_table(pa.table(columns, schema))


def _sources(found: Collected) -> Iterator[tuple[slice, pa.ListArray]]:
    """Yield rows, some at a time, with the list of all places where each of them stands."""
    import pyarrow as pa

    where = found.occurrences
    order = np.argsort(where.rows, kind="stable")
    ends = np.searchsorted(where.rows[order], np.arange(len(found) + 1))
    labels = pa.array([label for label, _ in found.files], pa.string())
    splits = pa.array([split for _, split in found.files], pa.string())
    kind = refs_schema().field("sources").type
    for begin in range(0, len(found), _GROUP):
        rows = slice(begin, min(begin + _GROUP, len(found)))
        some = order[ends[rows.start] : ends[rows.stop]]
        files = pa.array(where.files[some])
        fields = [labels.take(files), pa.array(where.lines[some]), splits.take(files)]
        offsets = ends[rows.start : rows.stop + 1] - ends[rows.start]
        made = pa.StructArray.from_arrays(fields, fields=list(kind.value_type))
        yield rows, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), made, type=kind)


def _named(codes: Codes) -> pa.Array:
    import pyarrow as pa

    return pa.array(CODED).take(pa.array(codes))


def _write_rejects(path: Path, found: Collected) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [
        {"stage": "ingest", "reason": r.text, "source_file": r.file, "source_line": r.line}
        for r in found.rejects
    ]
    pq.write_table(pa.Table.from_pylist(lines, rejects_schema()), path, compression="zstd")


def _digest(found: Collected, metas: Texts, placed: Assignment) -> str:
    """Return the digest of the ordered rows: hash, split, tags and the columns kept beside them.

    Each is a line of JSON: [hash, split, [], meta].
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    total = hashlib.sha256()
    for begin in range(0, len(found), _DIGESTED):
        rows = slice(begin, begin + _DIGESTED)
        hashes = as_texts(found.index.hashes[rows])
        beside = metas.array(begin, len(hashes)).dictionary_encode()
        said = [json.dumps(meta, ensure_ascii=False) for meta in beside.dictionary.to_pylist()]
        quoted = pa.array(said, pa.string()).take(beside.indices)
        splits = _named(placed.splits[rows])
        lines = pc.binary_join_element_wise('["', hashes, '","', splits, '",[],', quoted, "]\n", "")
        total.update(bytes_of(lines)[1].data)
    return total.hexdigest()


def _facts(name: str, spec: DatasetSpec, found: Collected, placed: Assignment) -> dict[str, Any]:
    """Return what the manifest says of the version; counts are of rows."""
    counts = np.bincount(placed.splits, minlength=len(CODED)).tolist()
    by_split = {split: counts[CODED.index(split)] for split in (*SPLITS, HELD)}
    return {
        "name": name,
        "rows": len(found),
        "records": found.records,
        "rejects": len(found.rejects),
        "splits": {split: count for split, count in by_split.items() if count},
        "clusters": len(np.unique(placed.clusters)),
        "duplicates": len(found.occurrences.rows) - len(found),
        "leaks": {"exact": found.leaked, "near": len(placed.leaks)},
        "license": spec.license,
    }
