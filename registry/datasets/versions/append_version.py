"""The version that an append writes: what it shares with the one before, and what it adds.

A version's rows lie in files of refs, its parts. Parts whose rows are as they were are shared, byte
for byte; one in which a row got another cluster or source is written anew, and the new rows are a
part of their own. As in any log-structured store (Bentley and Saxe), the last parts are joined to
the new one while they are less than twice as long:

    parts 100, 8 and 3 new rows -> 100, 8, 3
    and 2 new rows              -> 100, 13      3 < 2 * 2 and 8 < 2 * 5, but not 100 < 2 * 13

So there are at most log2(rows) + 1 parts after any number of appends, and no row is written more
often than that for being appended to. The version's id is a digest of all rows, in blocks; full
blocks are known from the index, so that only the last one is read for it (digest.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.datasets.duplicates.bands import Bands
from registry.datasets.formats.content import HELD, SPLITS
from registry.datasets.versions.append import newly_leaked
from registry.datasets.versions.append_index import IndexFacts, add_part, publish, share_part
from registry.datasets.versions.contents import SCHEMA
from registry.datasets.versions.digest import BLOCK, COLUMNS, RowsDigest
from registry.datasets.versions.refs import read_refs, refs_at, refs_batches, refs_name
from registry.datasets.versions.splits import CODED, Assignment
from registry.datasets.versions.version import (
    put_version,
    refs_of,
    rejects_of,
    write_refs,
    write_rejects,
)
from registry.store.filenames import REJECTS
from registry.store.objects import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from registry.datasets.formats.arrays import Int64Array
    from registry.datasets.versions.append import AppendedContents, PreviousVersion
    from registry.datasets.versions.collect import CollectedRows
    from registry.datasets.versions.contents import StoredContents
    from registry.datasets.versions.spool import Texts
    from registry.datasets.versions.version import WrittenVersion
    from registry.store.kinds import VersionMeta
    from registry.store.objects import Sealed, Store


@dataclass(frozen=True)
class RowEdits:
    """Rows of the version before that the new one says something else of; places ascend."""

    places: Int64Array
    columns: pa.Table  # their cluster and sources


def write_appended(
    store: Store,
    before: PreviousVersion,
    found: CollectedRows,
    metas: Texts,
    appended: AppendedContents,
    known: StoredContents,
    key: str,
) -> WrittenVersion:
    """Put the version that the new files make, and its index.

    Args:
        store: where to.
        before: the version that they are appended to.
        found: what is in the new files.
        metas: the other columns of each content found.
        appended: where they are put.
        known: where the contents are.
        key: what the version is made from.
    """
    facts = _facts(before, found, appended)
    license_ = before.manifest.meta.license
    edited = _edited(before, found, appended)
    kept = _kept_parts(before, appended)
    digest = _digest_before(before)
    with store.draft() as draft:
        shared: dict[str, Sealed] = {}
        begin = 0
        for number, rows in enumerate(before.index.facts.parts[:kept]):
            target = draft / refs_name(number)
            mine = _within(edited, begin, begin + rows)
            if len(mine.places):
                write_refs(target, _with(before.refs[number : number + 1], mine))
            elif share(before.refs[number], target):
                shared[target.name] = before.manifest.files[target.name]
            begin += rows
        if len(appended.fresh):
            older = _with(before.refs[kept:], _within(edited, begin, before.index.rows))
            fresh = _digested(_fresh(found, facts.name, license_, metas, appended), digest)
            write_refs(draft / refs_name(kept), chain(older, fresh))
        _write_all_rejects(draft / REJECTS, before, found)
        written = put_version(
            store,
            draft,
            {"schema": SCHEMA, "rows": digest.hexdigest(), "license": license_},
            _contents(before, known, found, appended),
            facts,
            digest.blocks,
            shared,
        )
    if written.new:
        _publish(store, before, found, appended, kept, written, known, key)
    return written


def _kept_parts(before: PreviousVersion, appended: AppendedContents) -> int:
    """Return how many parts stay by themselves: those behind them are less than twice as long."""
    parts, rows = before.index.facts.parts, len(appended.fresh)
    kept = len(parts)
    while rows and kept and parts[kept - 1] < 2 * rows:
        kept -= 1
        rows += parts[kept]
    return kept


# -------------------------------------------------------------------- rows that were there


def _edited(before: PreviousVersion, found: CollectedRows, appended: AppendedContents) -> RowEdits:
    """Return the older rows that are in another cluster now, or in a new file once more."""
    import pyarrow as pa

    older = appended.older
    clusters = appended.placed.clusters[: len(older.places)]
    again = _new_places(before, found, appended)
    changed = clusters != older.table["cluster"].to_numpy()
    changed |= np.isin(older.places, np.fromiter(again, np.int64, len(again)))
    which = np.flatnonzero(changed)
    sources = older.table["sources"].take(pa.array(which)).to_pylist()
    for place, listed in zip(older.places[which].tolist(), sources, strict=True):
        listed.extend(again.get(place, []))
    kind = older.table.schema.field("sources").type
    columns = {"cluster": pa.array(clusters[which]), "sources": pa.array(sources, kind)}
    return RowEdits(older.places[which], pa.table(columns))


def _new_places(
    before: PreviousVersion, found: CollectedRows, appended: AppendedContents
) -> dict[int, list[dict[str, Any]]]:
    """Return the places in the new files of each older row that stands there too."""
    where = found.occurrences
    places: dict[int, list[dict[str, Any]]] = {}
    again = np.flatnonzero(appended.places[where.rows] < before.index.rows)
    rows = appended.places[where.rows[again]].tolist()
    files, lines = where.files[again].tolist(), where.lines[again].tolist()
    for place, file, line in zip(rows, files, lines, strict=True):
        label, split = found.files[file]
        places.setdefault(place, []).append({"file": label, "line": line, "split": split})
    return places


def _within(edited: RowEdits, begin: int, end: int) -> RowEdits:
    """Return those at places from `begin` to `end`, counted from `begin`."""
    first, last = np.searchsorted(edited.places, [begin, end]).tolist()
    return RowEdits(edited.places[first:last] - begin, edited.columns.slice(first, last - first))


def _with(paths: Iterable[Path], edited: RowEdits) -> Iterator[pa.Table]:
    """Yield the rows of files with the edited ones in them."""
    begin = 0
    for table in refs_batches(tuple(paths)):
        mine = _within(edited, begin, begin + len(table))
        yield _replaced(table, mine) if len(mine.places) else table
        begin += len(table)


def _replaced(table: pa.Table, edited: RowEdits) -> pa.Table:
    import pyarrow as pa

    order = np.arange(len(table))
    order[edited.places] = np.arange(len(table), len(table) + len(edited.places))
    for name in edited.columns.column_names:
        both = pa.chunked_array([*table[name].chunks, *edited.columns[name].chunks])
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), both.take(pa.array(order)))
    return table


# ------------------------------------------------------------------------- rows that are new


def _fresh(
    found: CollectedRows, name: str, license_: str | None, metas: Texts, appended: AppendedContents
) -> Iterator[pa.Table]:
    """Yield what the version says of the fresh rows."""
    import pyarrow as pa

    behind = len(appended.older.places)
    splits, clusters = np.zeros(len(found), np.uint8), np.zeros(len(found), np.int64)
    splits[appended.fresh] = appended.placed.splits[behind:]
    clusters[appended.fresh] = appended.placed.clusters[behind:]
    fresh = np.zeros(len(found), np.bool_)
    fresh[appended.fresh] = True
    begin = 0
    for table in refs_of(found, name, license_, metas, Assignment(splits, clusters, ())):
        yield table.filter(pa.array(fresh[begin : begin + len(table)]))
        begin += len(table)


def _digest_before(before: PreviousVersion) -> RowsDigest:
    """Return the digest of the rows that were there: full blocks are known, the last is read."""
    blocks = before.index.facts.blocks
    digest = RowsDigest(blocks)
    digest.add(refs_at(before.refs, np.arange(len(blocks) * BLOCK, before.index.rows), COLUMNS))
    return digest


def _digested(tables: Iterable[pa.Table], digest: RowsDigest) -> Iterator[pa.Table]:
    for table in tables:
        digest.add(table)
        yield table


def _write_all_rejects(path: Path, before: PreviousVersion, found: CollectedRows) -> None:
    import pyarrow.parquet as pq

    tables = [rejects_of(found)] if found.rejects else []
    if REJECTS in before.manifest.files:
        with pq.ParquetFile(before.version.path / REJECTS) as file:
            tables.insert(0, file.read())
    if tables:
        write_rejects(path, tables)


def _contents(
    before: PreviousVersion, known: StoredContents, found: CollectedRows, appended: AppendedContents
) -> list[str]:
    """Return the `rows` objects of the version, in the order of their first use."""
    named = [one.id for one in before.manifest.parents if one.role == "rows"]
    if len(appended.fresh):
        named += known.objects_of(found.index.hashes[appended.fresh])
    return list(dict.fromkeys(named))


def _facts(
    before: PreviousVersion, found: CollectedRows, appended: AppendedContents
) -> VersionMeta:
    """Return what the manifest says of the version; counts are of rows."""
    from registry.store.kinds import Leaks, VersionMeta

    was, placed = before.manifest.meta, appended.placed
    older, fresh = len(appended.older.places), len(appended.fresh)
    added = np.bincount(placed.splits[older:], minlength=len(CODED)).tolist()
    splits = {
        split: was.splits.get(split, 0) + added[CODED.index(split)] for split in (*SPLITS, HELD)
    }
    return VersionMeta(
        name=was.name,
        rows=was.rows + fresh,
        records=was.records + found.records,
        rejects=was.rejects + len(found.rejects),
        splits={split: count for split, count in splits.items() if count},
        clusters=_clusters(before, appended),
        duplicates=was.duplicates + len(found.occurrences.rows) - fresh,
        leaks=Leaks(exact=was.leaks.exact + newly_leaked(appended, found), near=len(placed.leaks)),
        license=was.license,
    )


def _clusters(before: PreviousVersion, appended: AppendedContents) -> int:
    """Return how many clusters there are.

    A number is that of one group, of which all rows were looked at; only where rows went and came
    again may another group have it too.
    """
    older, now = appended.older, appended.placed.clusters
    if not len(before.index.former.splits):
        gone = len(np.unique(older.table["cluster"].to_numpy()))
        return before.manifest.meta.clusters - gone + len(np.unique(now))
    clusters = read_refs(before.refs, ["cluster"])["cluster"].to_numpy().copy()
    clusters[older.places] = now[: len(older.places)]
    return len(np.unique(np.concatenate((clusters, now[len(older.places) :]))))


# ------------------------------------------------------------------------------- the index


def _publish(
    store: Store,
    before: PreviousVersion,
    found: CollectedRows,
    appended: AppendedContents,
    kept: int,
    written: WrittenVersion,
    known: StoredContents,
    key: str,
) -> None:
    index = before.index
    fresh = appended.fresh
    parts = index.facts.parts
    with store.draft() as draft:
        for number in range(kept):
            share_part(index, draft, number)
        tail = [index.part(number) for number in range(kept, len(parts))]
        hashes = [*(part[0] for part in tail), found.index.hashes[fresh]]
        uids = [*(part[1] for part in tail), found.uids[fresh]]
        keys = np.concatenate([*(part[2] for part in tail), appended.keys], axis=1)
        if keys.shape[1]:
            add_part(draft, kept, np.concatenate(hashes), np.concatenate(uids))
            Bands(draft / f"bands-{kept}", keys.shape[1]).write(0, keys)
        facts = IndexFacts(
            dataset=index.facts.dataset,
            key=key,
            parts=(*parts[:kept], *([keys.shape[1]] if keys.shape[1] else [])),
            blocks=written.blocks,
            contents=index.facts.contents | {*known.newest},
            covers=index.facts.covers | {written.version.id},
        )
        publish(
            store,
            draft,
            written.version.id,
            facts,
            appended.groups,
            index.former,
            stay=[before.version.id],
        )
