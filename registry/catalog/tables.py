"""The catalog's tables of a manifest: the object, its edges, and narrow tables made of both.

The narrow tables (migration 0002) answer lists, aliases and lineages without reading manifests.
Commit, rebuild and migration derive them here, by the same views of the catalog.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from registry.catalog.sql import fill
from registry.errors import StoreRequestError
from registry.store.hashing import canonical_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from duckdb import DuckDBPyConnection

    from registry.store.objects import ManifestJson

DERIVED_SINCE = 2
"""The migration that made the narrow tables."""

_DIGITS = 64
_WHOLE = "SELECT kind, id FROM catalog.objects WHERE id = ?"
_BEGINS = """
SELECT kind, id FROM catalog.objects WHERE id >= ? AND id < ? || 'g' ORDER BY id LIMIT 3
"""
_AT_ONCE = 500  # manifests in one INSERT
_PREFIX = re.compile(r"[0-9a-f]{1,64}")

# {these} chooses among the ids. Parents that nobody committed (a rebuild may find such) are nodes
# without a kind, so that no edge is left out.
_NODES = """
INSERT INTO catalog.nodes
SELECT (SELECT coalesce(max(number), 0) FROM catalog.nodes)
       + row_number() OVER (ORDER BY created_at, id), id, kind, created_at, label
FROM catalog.node_facts WHERE {these} ORDER BY created_at, id
"""
_ABSENT = """
INSERT INTO catalog.nodes
SELECT (SELECT coalesce(max(number), 0) FROM catalog.nodes) + row_number() OVER (ORDER BY parent),
       parent, NULL, NULL, ''
FROM (SELECT DISTINCT parent FROM catalog.edges ANTI JOIN catalog.nodes ON nodes.id = parent)
"""
_AWAITED = "INSERT INTO catalog.absent SELECT id FROM catalog.nodes WHERE kind IS NULL"
_APPEARED = """
UPDATE catalog.nodes SET kind = facts.kind, created_at = facts.created_at, label = facts.label
FROM catalog.node_facts AS facts WHERE facts.id = nodes.id AND nodes.id IN ?;
DELETE FROM catalog.absent WHERE id IN ?
"""
_LINKS = """
INSERT INTO catalog.links
SELECT child.number, parent.number, edges.role
FROM catalog.edges
JOIN catalog.nodes AS child ON child.id = edges.child
JOIN catalog.nodes AS parent ON parent.id = edges.parent
ORDER BY ALL
"""
_MOMENTS = "SELECT DISTINCT created_at FROM catalog.objects WHERE id IN ?"
_NUMBERS = "SELECT id, number FROM catalog.nodes WHERE created_at IN ? AND id IN ?"
_ADAPTERS = """
INSERT INTO catalog.adapters FROM catalog.adapter_facts WHERE {these} ORDER BY created_at, id
"""
_ALIASES = """
INSERT INTO catalog.alias_moves FROM catalog.alias_facts WHERE {these} ORDER BY moved_at, id
"""
_REMOVALS = "INSERT INTO catalog.removals FROM catalog.removal_facts WHERE {these}"


def add(connection: DuckDBPyConnection, manifests: Iterable[ManifestJson]) -> list[ManifestJson]:
    """Add manifests to `objects` and `edges`; returns those that were not there before.

    `derive` must follow in the same transaction.
    """
    added: list[ManifestJson] = []
    for batch in _batches(manifests):
        new = {manifest["id"]: manifest for manifest in batch}
        for known in committed(connection, list(new)):
            del new[known]
        if new:
            _insert(connection, list(new.values()))
            added += new.values()
    return added


def newest(connection: DuckDBPyConnection) -> datetime:
    """Return when the newest committed object was made, UTC without saying so; or the year 1."""
    row = connection.execute("SELECT max(created_at) FROM catalog.objects").fetchone()
    return (row and row[0]) or datetime.min  # noqa: DTZ901 - as DuckDB has them


def created(manifest: ManifestJson) -> datetime:
    """Return when an object was made, as `newest`."""
    return datetime.fromisoformat(manifest["meta"]["created_at"]).replace(tzinfo=None)


def derive_all(connection: DuckDBPyConnection) -> None:
    """Fill the narrow tables, which are empty, from `objects` and `edges`."""
    if not connection.execute("SELECT 1 FROM catalog.objects LIMIT 1").fetchone():
        return
    for statement in (_NODES, _ABSENT, _AWAITED, _LINKS, _ADAPTERS, _ALIASES, _REMOVALS):
        connection.execute(statement.format(these="true"))


def derive(connection: DuckDBPyConnection, added: Sequence[ManifestJson]) -> None:
    """Fill the narrow tables for what `add` has added; its parents are all committed."""
    ids = [manifest["id"] for manifest in added]
    awaited = _ids(connection, "absent", ids)  # a rebuild found children of theirs
    if awaited:
        connection.execute(fill(_APPEARED, [tuple(awaited)] * 2))
    kinds = {manifest["kind"] for manifest in added}
    for statement, which in (
        (_NODES, set(ids) - awaited),
        (_ADAPTERS, ids if kinds & {"adapter", "model"} else ()),
        (_ALIASES, ids if "alias" in kinds else ()),
        (_REMOVALS, ids if "removal" in kinds else ()),
    ):
        if which:
            connection.execute(statement.format(these=fill("id IN ?", [tuple(which)])))
    edges = _edges(added)
    if edges:
        ends = numbers(connection, {end for child, parent, _ in edges for end in (child, parent)})
        links = [(ends[child], ends[parent], role) for child, parent, role in edges]
        connection.execute(fill("INSERT INTO catalog.links VALUES ?", [links]))


def numbers(connection: DuckDBPyConnection, ids: Collection[str]) -> dict[str, int]:
    """Return id -> number of committed objects.

    Nodes are in the order of time: looked for by their time too, they are in one block or two,
    where the ids alone would have all of them read. Objects have an index of their ids.
    """
    wanted = tuple(ids)
    moments = connection.execute(fill(_MOMENTS, [wanted])).fetchall()
    if not moments:
        return {}
    times = tuple(moment.isoformat() for (moment,) in moments)
    return dict(connection.execute(fill(_NUMBERS, [times, wanted])).fetchall())


def committed(connection: DuckDBPyConnection, ids: Sequence[str]) -> set[str]:
    """Return which of these ids the catalog has."""
    return _ids(connection, "objects", ids)


def resolve(connection: DuckDBPyConnection, id_or_prefix: str) -> str:
    """Return the id of the one committed object whose id starts so.

    Raises:
        UserError: when there is none, or more than one.
    """
    found = []
    if _PREFIX.fullmatch(id_or_prefix.lower()):
        first = id_or_prefix.lower()
        # A range is decided by the first characters of most ids; all 64 digits have an index.
        statement = fill(_WHOLE, [first]) if len(first) == _DIGITS else fill(_BEGINS, [first] * 2)
        found = connection.execute(statement).fetchall()
    if not found:
        raise StoreRequestError(
            f"nothing in the store has the id {id_or_prefix!r}",
            fix='list ids with `gapmend sql "select kind, id from objects"`',
        )
    if len(found) > 1:
        ids = ", ".join(f"{kind} {object_id[:16]}" for kind, object_id in found)
        raise StoreRequestError(f"the id {id_or_prefix!r} fits several objects: {ids}, …")
    return str(found[0][1])


def alias_state(connection: DuckDBPyConnection, name: str) -> tuple[str | None, int]:
    """Return what an alias points at (None when it was never set) and how often it was moved."""
    statement = (
        "SELECT target, seq FROM catalog.alias_moves WHERE name = ?"
        " ORDER BY seq DESC, moved_at DESC, id DESC LIMIT 1"
    )
    row = connection.execute(fill(statement, [name])).fetchone()
    return (row[0], int(row[1])) if row else (None, 0)


def _insert(connection: DuckDBPyConnection, manifests: Sequence[ManifestJson]) -> None:
    objects = [_object(manifest) for manifest in manifests]
    connection.execute(fill("INSERT INTO catalog.objects VALUES ?", [objects]))
    edges = _edges(manifests)
    if edges:
        connection.execute(fill("INSERT INTO catalog.edges VALUES ?", [edges]))


def _edges(manifests: Sequence[ManifestJson]) -> list[tuple[str, str, str]]:
    """Return (child, parent, role), each once."""
    found = {
        (manifest["id"], parent["id"], parent["role"])
        for manifest in manifests
        for parent in manifest["parents"]
    }
    return sorted(found)


def _ids(connection: DuckDBPyConnection, table: str, ids: Sequence[str]) -> set[str]:
    if not ids:
        return set()
    statement = fill("WHERE id IN ?", [tuple(ids)])
    found = connection.execute(f"SELECT id FROM catalog.{table} {statement}")  # noqa: S608
    return {row[0] for row in found.fetchall()}


def _object(manifest: ManifestJson) -> tuple[str, str, str, str]:
    text = canonical_json(manifest).decode()
    return manifest["id"], manifest["kind"], created(manifest).isoformat(), text


def _batches(manifests: Iterable[ManifestJson]) -> Iterator[list[ManifestJson]]:
    batch: list[ManifestJson] = []
    for manifest in manifests:
        batch.append(manifest)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
