"""A new version of a dataset: from all of its files, or from those that were appended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.datasets.duplicates.near_duplicates import clusters
from registry.datasets.sources.mapped import lost_columns
from registry.datasets.versions.append import PreviousVersion, place_appended
from registry.datasets.versions.append_index import (
    FormerRows,
    IndexFacts,
    add_part,
    open_index,
    publish,
)
from registry.datasets.versions.append_version import write_appended
from registry.datasets.versions.collect import (
    Collector,
    WithholdingCollector,
    check_columns,
    check_rejects,
    collect,
)
from registry.datasets.versions.contents import ContentWriter
from registry.datasets.versions.erased import erased_rows
from registry.datasets.versions.splits import committed_placements
from registry.datasets.versions.spool import Spool
from registry.datasets.versions.version import place, write_version
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from registry.catalog.catalog import Catalog
    from registry.datasets.duplicates.hash_index import HashIndex
    from registry.datasets.formats.arrays import HashArray, Int32Array
    from registry.datasets.sources.resolve import Sources
    from registry.datasets.spec import DatasetSpec
    from registry.datasets.versions.collect import CollectedRows
    from registry.datasets.versions.contents import StoredContents
    from registry.datasets.versions.splits import Assignment, Placements
    from registry.datasets.versions.version import WrittenVersion
    from registry.store.kinds import ErasureMeta, RowsMeta
    from registry.store.manifest import Manifest
    from registry.store.objects import Store

_BESIDE = ("meta", "text")


@dataclass(frozen=True)
class VersionRequest:
    """What a version is made of.

    Attributes:
        name: the dataset's.
        spec: what the spec says of it.
        files: all of them.
        labels: the answers that are allowed; None allows any.
        earlier: ids of the dataset's committed versions, oldest first.
        key: what stands for all of it, the files' hashes too.
        rows: every committed `rows` object.
        erasures: every committed erasure, whose rows are not taken in.
    """

    name: str
    spec: DatasetSpec
    files: Sources
    labels: Collection[str] | None
    earlier: Sequence[str]
    key: str
    rows: Sequence[Manifest[RowsMeta]]
    erasures: Sequence[Manifest[ErasureMeta]]


@dataclass(frozen=True)
class NewVersion:
    """A version in the store, uncommitted.

    Attributes:
        written: the version and its objects.
        placed: where rows were put.
        hashes: of those rows.
        withheld: rows that were not taken in because they were erased.
    """

    written: WrittenVersion
    placed: Assignment
    hashes: HashArray
    withheld: int = 0


def make_version(
    store: Store,
    catalog: Catalog,
    wanted: VersionRequest,
    advance: Callable[[int], None],
    looked_at: Callable[[int, int], None] = lambda _done, _total: None,
) -> NewVersion:
    """Read all files and put the version that they make, with its index.

    Args:
        store: where it is put.
        catalog: what is committed, and the numbers of rows.
        wanted: what it is made of.
        advance: told the number of records read since the last call.
        looked_at: told how many rows of all were looked at for near-duplicates, after reading.

    Raises:
        UserError: a file that can't be read, too many rows that can't be used, or none that can.
    """
    name, spec = wanted.name, wanted.spec
    with (
        store.draft() as scratch,
        Spool(scratch / "beside.arrow", _BESIDE) as spool,
        ContentWriter(store, catalog, wanted.rows) as writer,
    ):
        erased = erased_rows(store, wanted.erasures)
        collector = WithholdingCollector(erased, writer, spool)
        found = collect(wanted.files, wanted.labels, collector, advance)
        check_columns(found, spec.columns, wanted.files.format, name)
        check_rejects(found, spec.allow_rejects, name)
        if not len(found):
            labels = ", ".join(file.label for file in wanted.files.files)
            raise DataError(f"dataset '{name}' has no rows", where=labels)
        writer.put()
        beside = spool.read()
        groups = clusters(beside["text"], scratch / "bands-0", looked_at)
        committed = committed_placements(store, wanted.earlier)
        placed = place(found, groups, spec, committed)
        written = write_version(store, name, spec, found, beside["meta"], placed, writer.known)
        if written.new:
            _publish(store, scratch, wanted, found, groups, committed, written, writer.known)
    return NewVersion(written, placed, found.index.hashes, collector.withheld)


def previous_version(
    store: Store, version_id: str, key: str, earlier: Collection[str]
) -> PreviousVersion | None:
    """Return a version to append to, with its index.

    Args:
        store: where it is.
        version_id: its id.
        key: of the request that made it; the same rows may come from other files as well.
        earlier: ids of the dataset's committed versions, whose rows it has to cover.

    Returns:
        None where it has no such index.
    """
    index = open_index(store, version_id)
    if index is None or index.facts.key != key or not index.facts.covers.issuperset(earlier):
        return None
    return PreviousVersion.of(store, store.get("dataset_version", version_id), index)


def append_version(
    store: Store,
    catalog: Catalog,
    wanted: VersionRequest,
    before: PreviousVersion,
    there: int,
    advance: Callable[[int], None],
) -> NewVersion | None:
    """Read the files behind the first `there`, of which `before` is, and put the new version.

    Returns:
        None where a column isn't there, or too many rows can't be used: a look at all files says
        which.

    Raises:
        UserError: a file that can't be read.
    """
    spec = wanted.spec
    files = replace(wanted.files, files=wanted.files.files[there:])
    with (
        store.draft() as scratch,
        Spool(scratch / "beside.arrow", _BESIDE) as spool,
        ContentWriter(store, catalog, wanted.rows, before.index) as writer,
    ):
        found = collect(files, wanted.labels, Collector(writer, spool), advance)
        was = before.manifest.meta
        records, rejects = was.records + found.records, was.rejects + len(found.rejects)
        lost = lost_columns(spec.columns, files.format.required_columns, found.columns)
        if rejects > spec.allow_rejects * records or any(lost):
            return None
        writer.put()
        beside = spool.read()
        appended = place_appended(store, spec, before, found, beside["text"])
        written = write_appended(
            store, before, found, beside["meta"], appended, writer.known, wanted.key
        )
    return NewVersion(written, appended.placed, appended.rows.hashes)


def _publish(
    store: Store,
    scratch: Path,
    wanted: VersionRequest,
    found: CollectedRows,
    groups: Int32Array,
    committed: Placements,
    written: WrittenVersion,
    known: StoredContents,
) -> None:
    """Keep what an append needs; `scratch` has the bands."""
    facts = IndexFacts(
        dataset=wanted.name,
        key=wanted.key,
        parts=(len(found),),
        blocks=written.blocks,
        contents=frozenset(known.wholly_in(found.index.hashes)),
        covers=frozenset((*wanted.earlier, written.version.id)),
    )
    with store.draft() as draft:
        add_part(draft, 0, found.index.hashes, found.uids)
        (scratch / "bands-0").rename(draft / "bands-0")
        gone = _gone(committed, found.index)
        stay = wanted.earlier[-1:]
        publish(store, draft, written.version.id, facts, groups, gone, stay=stay)


def _gone(committed: Placements, index: HashIndex) -> FormerRows:
    hashes, splits, clusters = committed.all()
    which = np.flatnonzero(index.find(hashes) < 0)
    return FormerRows(hashes[which], splits[which], clusters[which])
