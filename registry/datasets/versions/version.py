"""The files of a dataset version: what it says of each row, beside the contents it refers to.

The version's id is decided by what its rows say and where they are placed; uids, sources and
paths are beside it, so that the same content has the same id on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.datasets.duplicates.hash_index import as_texts
from registry.datasets.formats.content import HELD, SPLITS
from registry.datasets.versions.contents import SCHEMA
from registry.datasets.versions.digest import RowsDigest
from registry.datasets.versions.places import put_places
from registry.datasets.versions.refs import GROUP, refs_name
from registry.datasets.versions.row import refs_schema, rejects_schema
from registry.datasets.versions.splits import CODED, PlacedRows, Target, assign, target_rows
from registry.store.filenames import REJECTS
from registry.store.hashing import digest as hash_of
from registry.store.objects import ObjectRef, Parent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from registry.datasets.formats.arrays import Int32Array, Uint8Array
    from registry.datasets.spec import DatasetSpec
    from registry.datasets.versions.collect import CollectedRows
    from registry.datasets.versions.contents import StoredContents
    from registry.datasets.versions.splits import Assignment, Placements
    from registry.datasets.versions.spool import Texts
    from registry.store.kinds import VersionMeta
    from registry.store.objects import Sealed, Store

_KIND = "dataset_version"


@dataclass(frozen=True)
class WrittenVersion:
    """A version in the store, uncommitted: every object to commit, parents first, and its facts."""

    version: ObjectRef
    objects: tuple[ObjectRef, ...]
    facts: VersionMeta
    new: bool  # and not in the store before
    blocks: tuple[str, ...]  # see `RowsDigest`
    places: ObjectRef | None = None  # what this dataset says otherwise of one that was there


def place(
    found: CollectedRows, groups: Int32Array, spec: DatasetSpec, committed: Placements
) -> Assignment:
    """Decide split and cluster of every content that was found; `groups` are what is near."""
    splits, numbers = committed.of(found.index.hashes)
    rows = PlacedRows(found.index.hashes, found.given, splits, numbers)
    return assign(rows, groups, split_targets(spec, len(found)))


def split_targets(spec: DatasetSpec, rows: int) -> list[Target]:
    """Return how many of a version's rows are wanted in each split that is carved out."""
    sizes = {"dev": spec.split.dev, "test": spec.split.test}
    return [Target(split, target_rows(sizes[split], rows)) for split in spec.carved]


def write_version(
    store: Store,
    name: str,
    spec: DatasetSpec,
    found: CollectedRows,
    metas: Texts,
    placed: Assignment,
    known: StoredContents,
) -> WrittenVersion:
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
    with store.draft() as draft:
        digest = RowsDigest()
        tables = refs_of(found, name, spec.license, metas, placed)
        write_refs(draft / refs_name(0), tables, digest)
        if found.rejects:
            write_rejects(draft / REJECTS, [rejects_of(found)])
        return put_version(
            store,
            draft,
            {"schema": SCHEMA, "rows": digest.hexdigest(), "license": spec.license},
            known.objects_of(found.index.hashes),
            _facts(name, spec, found, placed),
            digest.blocks,
        )


def put_version(
    store: Store,
    draft: Path,
    identity: dict[str, Any],
    contents: Sequence[str],
    facts: VersionMeta,
    blocks: Sequence[str],
    shared: Mapping[str, Sealed] | None = None,
) -> WrittenVersion:
    """Put a draft's version into the store, or find this very one there, acknowledged or not.

    A call that was killed before its commit leaves one, whose uids are those of the `rows` objects
    that it names: they are kept together.

    Args:
        store: where to.
        draft: the version's files.
        identity: what decides its id.
        contents: ids of the `rows` objects.
        facts: what its manifest says.
        blocks: digests of its full blocks of rows.
        shared: files of the draft that are linked to another object's.
    """
    there = store.find(_KIND, hash_of({"kind": _KIND, "identity": identity}))
    places = None
    if there is not None:
        version = store.get(_KIND, there.id)
        places = put_places(store, draft, version, facts)
    else:
        parents = [Parent(one, "rows") for one in contents]
        version = store.put(
            _KIND, draft, identity=identity, parents=parents, meta=facts, sealed=shared or {}
        )
    named = [store.get("rows", parent["id"]) for parent in store.manifest(version)["parents"]]
    return WrittenVersion(version, (*named, version), facts, there is None, tuple(blocks), places)


def write_refs(path: Path, tables: Iterable[pa.Table], digest: RowsDigest | None = None) -> int:
    """Write a file of refs, digest its rows on the way, and return how many there are."""
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(path, refs_schema(), compression="zstd") as file:
        for table in tables:
            file.write_table(table)
            rows += len(table)
            if digest is not None:
                digest.add(table)
    return rows


def refs_of(
    found: CollectedRows, name: str, license_: str | None, metas: Texts, placed: Assignment
) -> Iterator[pa.Table]:
    """Yield what a version says of contents, by column, some at a time."""
    import pyarrow as pa

    schema = refs_schema()
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
            "license": pa.array([license_] * count, pa.string()),
            "meta": metas.array(rows.start, count),
        }
        yield pa.table(columns, schema)


def _sources(found: CollectedRows) -> Iterator[tuple[slice, pa.ListArray]]:
    """Yield rows, some at a time, with the list of all places where each of them stands."""
    import pyarrow as pa

    where = found.occurrences
    order = np.argsort(where.rows, kind="stable")
    ends = np.searchsorted(where.rows[order], np.arange(len(found) + 1))
    labels = pa.array([label for label, _ in found.files], pa.string())
    splits = pa.array([split for _, split in found.files], pa.string())
    kind = refs_schema().field("sources").type
    for begin in range(0, len(found), GROUP):
        rows = slice(begin, min(begin + GROUP, len(found)))
        some = order[ends[rows.start] : ends[rows.stop]]
        files = pa.array(where.files[some])
        fields = [labels.take(files), pa.array(where.lines[some]), splits.take(files)]
        offsets = ends[rows.start : rows.stop + 1] - ends[rows.start]
        made = pa.StructArray.from_arrays(fields, fields=list(kind.value_type))
        yield rows, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), made, type=kind)


def _named(codes: Uint8Array) -> pa.Array:
    import pyarrow as pa

    return pa.array(CODED).take(pa.array(codes))


def rejects_of(found: CollectedRows) -> pa.Table:
    """Return what was not taken, and why."""
    import pyarrow as pa

    lines = [
        {"stage": "ingest", "reason": r.text, "source_file": r.file, "source_line": r.line}
        for r in found.rejects
    ]
    return pa.Table.from_pylist(lines, rejects_schema())


def write_rejects(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write what was not taken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.concat_tables(tables), path, compression="zstd")


def _facts(name: str, spec: DatasetSpec, found: CollectedRows, placed: Assignment) -> VersionMeta:
    """Return what the manifest says of the version; counts are of rows."""
    from registry.store.kinds import Leaks, VersionMeta

    counts = np.bincount(placed.splits, minlength=len(CODED)).tolist()
    by_split = {split: counts[CODED.index(split)] for split in (*SPLITS, HELD)}
    return VersionMeta(
        name=name,
        rows=len(found),
        records=found.records,
        rejects=len(found.rejects),
        splits={split: count for split, count in by_split.items() if count},
        clusters=len(np.unique(placed.clusters)),
        duplicates=len(found.occurrences.rows) - len(found),
        leaks=Leaks(exact=found.leaked, near=len(placed.leaks)),
        license=spec.license,
    )
