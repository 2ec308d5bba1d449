"""Facts about datasets and their versions: lists, histories, and one version in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.datasets.history.diff import count_changes
from registry.datasets.history.names import of_dataset, versions
from registry.datasets.versions.query import open_connection, records, rows_at, version_files

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from registry.catalog.catalog import Catalog
    from registry.datasets.history.names import Version
    from registry.datasets.versions.query import VersionFiles
    from registry.store.objects import Store

_SPLITS = "SELECT split, count(*) AS rows FROM v_refs GROUP BY ALL ORDER BY rows DESC, split"
_KINDS = """
SELECT content.kind, count(*) AS rows FROM v_rows AS content JOIN v_refs USING (row_uid)
GROUP BY ALL ORDER BY rows DESC, kind
"""
_SOURCES = """
SELECT occurrence.file AS path, count(*) AS rows
FROM (SELECT unnest(sources) AS occurrence FROM v_refs)
GROUP BY ALL ORDER BY rows DESC, path
"""
_REJECTS = """
SELECT split_part(reason, ': ', 1) AS reason, count(*) AS rows,
       arg_min(source_file || ':' || source_line, (source_file, source_line)) AS first
FROM v_rejects GROUP BY 1 ORDER BY rows DESC, 1
"""
# As the macro adapters_that_saw goes, from the selections that a version was given to.
_ADAPTERS = """
WITH RECURSIVE taught AS (
    SELECT made.child AS id, made.parent AS selection_id
    FROM edges AS given
    JOIN objects AS selection ON selection.id = given.child AND selection.kind = 'selection'
    JOIN edges AS made ON made.parent = selection.id
    WHERE given.parent = ?
    UNION
    SELECT edges.child, taught.selection_id
    FROM taught
    JOIN edges ON edges.parent = taught.id
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
)
SELECT taught.id, any_value(objects.created_at), count(DISTINCT pick.row_uid)
FROM taught
JOIN objects ON objects.id = taught.id AND (objects.kind = 'adapter'
    OR (objects.kind = 'model' AND (objects.manifest->>'$.identity.changed') IS NOT NULL))
JOIN parquet.stored_picks AS pick ON pick.object_id = taught.selection_id
SEMI JOIN read_parquet([?]) AS refs ON refs.row_uid = pick.row_uid
GROUP BY taught.id ORDER BY 2, 1
"""


@dataclass(frozen=True)
class DatasetEntry:
    """One dataset by its newest version; counts are of rows."""

    name: str
    version_id: str
    versions: int
    splits: dict[str, int]
    rejects: int
    license: str | None
    tags: tuple[str, ...]
    created_at: str


@dataclass(frozen=True)
class VersionEntry:
    """One version in the history of a dataset: rows that came and went since the one before."""

    version_id: str
    created_at: str
    rows: int
    added: int
    removed: int
    rejects: int
    tags: tuple[str, ...]


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter that was trained on so many rows of a version."""

    adapter_id: str
    created_at: str
    rows: int


@dataclass(frozen=True)
class VersionFacts:
    """All that is known of one version.

    Attributes:
        meta: what its manifest says: rows, records, clusters, duplicates, leaks and their like.
        sources: file -> rows that stand in it; a row may stand in several.
        rejects: reason -> how many, and where the first is.
        files: its Parquet files, for other programs to read.
        first: the first rows.
    """

    version_id: str
    name: str
    created_at: str
    tags: tuple[str, ...]
    meta: dict[str, Any]
    splits: dict[str, int]
    kinds: dict[str, int]
    sources: dict[str, int]
    rejects: dict[str, tuple[int, str]]
    adapters: tuple[TrainedAdapter, ...]
    files: VersionFiles
    first: tuple[dict[str, Any], ...]


def listing(catalog: Catalog) -> tuple[DatasetEntry, ...]:
    """Return every dataset by its newest version, in the order of their names."""
    by_name: dict[str, list[Version]] = {}
    for one in versions(catalog):
        by_name.setdefault(one.name, []).append(one)
    return tuple(
        DatasetEntry(
            name=name,
            version_id=ours[-1].id,
            versions=len(ours),
            splits=ours[-1].meta.splits,
            rejects=ours[-1].meta.rejects,
            license=ours[-1].meta.license,
            tags=ours[-1].tags,
            created_at=ours[-1].created_at,
        )
        for name, ours in sorted(by_name.items())
    )


def history(store: Store, catalog: Catalog, name: str) -> tuple[VersionEntry, ...]:
    """Return the versions of a dataset, the oldest first, each beside the one before.

    Raises:
        UserError: no dataset is called that.
        StoreError: a version's files are missing or damaged.
    """
    found: list[VersionEntry] = []
    before: Version | None = None
    for one in of_dataset(catalog, name):
        rows = one.meta.rows
        added, removed = (rows, 0) if before is None else count_changes(store, before.id, one.id)
        found.append(
            VersionEntry(one.id, one.created_at, rows, added, removed, one.meta.rejects, one.tags)
        )
        before = one
    return tuple(found)


def facts(store: Store, catalog: Catalog, version: Version, *, rows: int) -> VersionFacts:
    """Return what is known of a version, with its first `rows` rows.

    Raises:
        StoreError: its files are missing or damaged.
    """
    files = version_files(store, version.id, version.name)
    with open_connection(store, v=files) as connection:
        rejects = records(connection, _REJECTS)
        return VersionFacts(
            version_id=version.id,
            name=version.name,
            created_at=version.created_at,
            tags=version.tags,
            meta=version.meta.as_json(),
            splits=_counts(connection, _SPLITS),
            kinds=_counts(connection, _KINDS),
            sources=_counts(connection, _SOURCES),
            rejects={one["reason"]: (one["rows"], one["first"]) for one in rejects},
            adapters=_adapters(catalog, version.id, files),
            files=files,
            first=tuple(rows_at(connection, "v", range(rows))),
        )


def _counts(connection: DuckDBPyConnection, sql: str) -> dict[str, int]:
    return dict(connection.execute(sql).fetchall())


def _adapters(catalog: Catalog, version_id: str, files: VersionFiles) -> tuple[TrainedAdapter, ...]:
    found = catalog.query(_ADAPTERS, [version_id, list(files.refs)]).rows
    return tuple(
        TrainedAdapter(key, f"{made.isoformat(timespec='microseconds')}+00:00", rows)
        for key, made, rows in found
    )
