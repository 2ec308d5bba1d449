"""Lists and names from the catalog's narrow tables: at once, however much is registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.catalog.sql import fill

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

    from registry.catalog.catalog import Catalog

_COLUMNS = (
    *("adapter_id", "created_at", "name", "base", "method", "rank", "round", "rows", "loss"),
    "scale",
)
_TOTAL = "SELECT count(*) FROM catalog.adapters WHERE {chosen}"
_NEWEST = """
SELECT id, created_at, name, base, method, rank, round, rows, loss, scale
FROM catalog.adapters WHERE {chosen} ORDER BY created_at DESC, id DESC LIMIT {limit} OFFSET {offset}
"""
_ANY_REMOVED = "SELECT 1 FROM catalog.removals LIMIT 1"
# What the aliases that ever pointed at one of these point at now.
_ALIASES = """
SELECT name, arg_max(target, seq) FROM catalog.alias_moves
WHERE name IN (SELECT name FROM catalog.alias_moves WHERE target IN ?) GROUP BY name ORDER BY name
"""
_TARGET = """
SELECT target FROM catalog.alias_moves
WHERE name = ? ORDER BY seq DESC, moved_at DESC, id DESC LIMIT 1
"""
_MOVES = """
SELECT name, seq, target, previous, reason, moved_at, id
FROM catalog.alias_moves WHERE name = ? ORDER BY seq, moved_at, id
"""
# The same rows in the same splits are one version, also of several datasets: its manifest names the
# first alone, objects of kind `places` and the runs name all. Canonical JSON is searched before it
# is parsed.
_NAMED = """
WITH ingests AS (
    SELECT id, manifest, created_at, unnest((manifest->'$.meta.outputs')::JSON[]) AS output
    FROM catalog.objects WHERE kind = 'run' AND contains(manifest, '"stage":"ingest"')
), said AS (
    SELECT id, id AS version_id, manifest->>'$.meta.name' AS name, created_at
    FROM catalog.objects WHERE kind = 'dataset_version'
    UNION ALL
    SELECT id, manifest->>'$.identity.version', manifest->>'$.meta.name', created_at
    FROM catalog.objects WHERE kind = 'places'
    UNION ALL
    SELECT id, output->>'$.id', manifest->>'$.meta.inputs.name', created_at
    FROM ingests WHERE output->>'$.role' = 'version'
)
SELECT version_id, name, min(created_at) AS first, (
    SELECT arg_max(place.id, (place.created_at, place.id)) FROM said AS place
    WHERE place.version_id = said.version_id AND place.name = said.name AND place.id IN (
        SELECT id FROM catalog.objects WHERE kind = 'places')
) AS places_id
FROM said WHERE name IS NOT NULL GROUP BY version_id, name ORDER BY first, version_id, name
"""


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A dataset that has a version, since when (UTC, ISO 8601).

    `places_id` is the object that says where it has the rows, if the version doesn't.
    """

    version_id: str
    name: str
    created_at: str
    places_id: str | None


@dataclass(frozen=True, slots=True)
class AdapterPage:
    """The newest adapters and how many there are in all.

    Each row has `adapter_id`, `created_at` (UTC, ISO 8601), `name`, `base`, `method`, `rank`,
    `round`, `rows`, `loss`, `scale` (None where unknown) and `aliases` (a list, may be empty).
    """

    total: int
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias; `seq` counts them from 1, `moved_at` is UTC, ISO 8601."""

    name: str
    seq: int
    target: str
    previous: str | None
    reason: str
    moved_at: str
    alias_id: str


def adapters(
    catalog: Catalog,
    *,
    limit: int = 20,
    offset: int = 0,
    base: str | None = None,
    alias: str | None = None,
) -> AdapterPage:
    """List the newest adapters; those set aside are neither listed nor counted.

    Args:
        catalog: where they are.
        limit: at most so many rows.
        offset: without so many of the newest.
        base: of the base that has this name in the spec.
        alias: the one that this alias points at.

    Raises:
        UserError, StoreError: the catalog can't be opened.
    """
    with catalog.reading() as connection:
        chosen = _chosen(connection, base, alias)
        total = connection.execute(_TOTAL.format(chosen=chosen)).fetchone()
        newest = _NEWEST.format(chosen=chosen, limit=limit, offset=offset)
        rows = connection.execute(newest).fetchall()
        ids = tuple(row[0] for row in rows)
        aliases = connection.execute(fill(_ALIASES, [ids])).fetchall() if ids else []
    listed = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    for row in listed:
        row["created_at"] = _utc(row["created_at"])
        row["aliases"] = [name for name, target in aliases if target == row["adapter_id"]]
    return AdapterPage(int(total[0]) if total else 0, tuple(listed))


def _chosen(connection: DuckDBPyConnection, base: str | None, alias: str | None) -> str:
    """Write the condition; each part of it costs, so that it has only those that matter."""
    parts = ["true"]
    if base is not None:
        parts.append(fill("base = ?", [base]))
    if alias is not None:
        target = connection.execute(fill(_TARGET, [alias])).fetchone()
        parts.append(fill("id = ?", [target[0]]) if target else "false")
    if connection.execute(_ANY_REMOVED).fetchone():
        parts.append("id NOT IN (SELECT adapter_id FROM catalog.removals)")
    return " AND ".join(parts)


def alias_history(catalog: Catalog, name: str) -> tuple[AliasMove, ...]:
    """Return every move of an alias, the first one first; empty when it was never set."""
    with catalog.reading() as connection:
        rows = connection.execute(fill(_MOVES, [name])).fetchall()
    return tuple(
        AliasMove(name, int(seq), target, previous, reason or "", _utc(moved_at), alias_id)
        for name, seq, target, previous, reason, moved_at, alias_id in rows
    )


def dataset_names(catalog: Catalog) -> tuple[DatasetName, ...]:
    """Return every version under every name that it has, the oldest first."""
    with catalog.reading() as connection:
        rows = connection.execute(_NAMED).fetchall()
    return tuple(DatasetName(key, name, _utc(since), at) for key, name, since, at in rows)


def _utc(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='microseconds')}+00:00"
