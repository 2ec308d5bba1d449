"""The diff of two versions of data, row by row, whatever dataset they are of.

The rule, in this order; every row of either version is in exactly one group:

same      the same content (row_hash) in the same split of both
annotated as same, but its tags or the columns kept beside it (`meta`) differ
moved     the same content in another split
changed   a row of A alone and a row of B alone that belong together: the same question (all turns
          but the answer: roles, texts and tool calls) with another answer or label; of what is
          left, the same source file and line. Several that fit are paired in their order.
removed   any other row of A alone
added     any other row of B alone
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

from registry.datasets.choices import Group
from registry.datasets.versions.query import open_connection, rows_at, version_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyConnection

    from registry.store.objects import Store

GROUPS: tuple[Group, ...] = get_args(Group)

# All rows but those that are the same in both. A place is a number of 16 bytes, as a question is
# below: versions may have nothing in common.
_APART = """
CREATE TEMP TABLE apart AS
SELECT a.position AS a, b.position AS b, coalesce(a.row_uid, b.row_uid) AS row_uid,
       md5_number(coalesce(a.source_file, b.source_file) || ':' ||
                  coalesce(a.source_line, b.source_line)) AS place,
       a.split <> b.split AS moved
FROM a_refs AS a FULL JOIN b_refs AS b USING (row_hash)
WHERE a.position IS NULL OR b.position IS NULL OR a.split <> b.split
   OR a.tags IS DISTINCT FROM b.tags OR a.meta IS DISTINCT FROM b.meta
"""
_COUNTS = """
SELECT (SELECT count(*) FROM b_refs) - count(b),
       count(*) FILTER (a IS NULL), count(*) FILTER (b IS NULL),
       count(*) FILTER (moved), count(*) FILTER (NOT moved)
FROM apart
"""
# A text has no question, and a preference row nothing but one in `messages`.
_ASKED = """
CREATE TEMP TABLE asked_{one} AS
SELECT alone.{one} AS position, alone.place,
       CASE WHEN content.kind <> 'text' THEN md5_number(to_json([
           [turn.role, turn.content, turn.tool_calls] FOR turn IN
           CASE content.kind WHEN 'preference' THEN content.messages
                ELSE list_slice(content.messages, 1, len(content.messages) - 1) END
       ])::VARCHAR) END AS question
FROM {one}_rows AS content JOIN (FROM apart WHERE {other} IS NULL) AS alone USING (row_uid)
"""
_NTH = """
SELECT asked.position, {key}, row_number() OVER (PARTITION BY {key} ORDER BY position) AS nth
FROM asked_{one} AS asked ANTI JOIN pairs ON pairs.{one} = asked.position
WHERE {key} IS NOT NULL
"""
_PAIR = """
INSERT INTO pairs SELECT a.position, b.position FROM ({a}) AS a JOIN ({b}) AS b USING ({key}, nth)
"""
_CHOSEN: dict[Group, str] = {
    "added": "SELECT a, b FROM apart ANTI JOIN pairs USING (b) WHERE apart.a IS NULL",
    "removed": "SELECT a, b FROM apart ANTI JOIN pairs USING (a) WHERE apart.b IS NULL",
    "changed": "SELECT a, b FROM pairs",
    "moved": "SELECT a, b FROM apart WHERE moved",
    "annotated": "SELECT a, b FROM apart WHERE NOT moved",
}


@dataclass(frozen=True)
class RowChange:
    """A row before (in A) and after (in B); None where it isn't there."""

    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(frozen=True)
class RowChanges:
    """How many rows are in each group, and the first of one group, in the order of B (or of A)."""

    same: int
    counts: dict[Group, int]
    shown: tuple[RowChange, ...] = field(default=())


def row_changes(
    store: Store, a: str, b: str, *, show: Group | None = None, limit: int = 10
) -> RowChanges:
    """Compare the rows of two versions.

    Args:
        store: where both are.
        a: id of the one before.
        b: id of the one after.
        show: a group whose rows are wanted.
        limit: at most so many of them.

    Raises:
        StoreError: a version that is not in the store, or damaged.
    """
    with open_connection(store, a=version_files(store, a), b=version_files(store, b)) as connection:
        found = _counted(connection)
        return found if show is None else replace(found, shown=_shown(connection, show, limit))


def changes_by_group(store: Store, a: str, b: str, *, limit: int) -> dict[Group, RowChanges]:
    """Compare two versions once, as `row_changes` does, for the first rows of every group.

    Raises:
        StoreError: as `row_changes`.
    """
    with open_connection(store, a=version_files(store, a), b=version_files(store, b)) as connection:
        found = _counted(connection)
        return {one: replace(found, shown=_shown(connection, one, limit)) for one in GROUPS}


def count_changes(store: Store, a: str, b: str) -> tuple[int, int]:
    """Return how many rows B has that A has not, and how many it has no more, by their content.

    Raises:
        StoreError: as `row_changes`.
    """
    with open_connection(store, a=version_files(store, a), b=version_files(store, b)) as connection:
        _, added, removed, *_ = _compare(connection)
    return added, removed


def _counted(connection: DuckDBPyConnection) -> RowChanges:
    """Find what changed; the rows stay in the connection, for `_shown`."""
    same, added, removed, moved, annotated = _compare(connection)
    _pair(connection)
    (changed,) = _one(connection, "SELECT count(*) FROM pairs")
    return RowChanges(
        same,
        {
            "added": added - changed,
            "removed": removed - changed,
            "changed": changed,
            "moved": moved,
            "annotated": annotated,
        },
    )


def _compare(connection: DuckDBPyConnection) -> tuple[int, ...]:
    """Find the rows that are not the same; returns the counts of `_COUNTS`, none paired yet."""
    connection.execute("SET preserve_insertion_order = false")  # which takes memory
    connection.execute(_APART)
    return _one(connection, _COUNTS)


def _pair(connection: DuckDBPyConnection) -> None:
    """Fill `pairs` with the positions of rows that changed: by question first, then by place."""
    connection.execute("CREATE TEMP TABLE pairs (a BIGINT, b BIGINT)")
    for one, other in (("a", "b"), ("b", "a")):
        connection.execute(_ASKED.format(one=one, other=other))
    for key in ("question", "place"):
        sides = {one: _NTH.format(one=one, key=key) for one in ("a", "b")}
        connection.execute(_PAIR.format(key=key, **sides))


def _shown(connection: DuckDBPyConnection, group: Group, limit: int) -> tuple[RowChange, ...]:
    pairs = connection.execute(
        f"SELECT * FROM ({_CHOSEN[group]}) AS chosen(a, b)"  # noqa: S608 - a constant of this file
        f" ORDER BY b NULLS LAST, a LIMIT {limit}"
    ).fetchall()
    sides = [
        {
            row["position"]: row
            for row in rows_at(connection, name, _there(pair[n] for pair in pairs))
        }
        for n, name in enumerate(("a", "b"))
    ]
    return tuple(RowChange(sides[0].get(a), sides[1].get(b)) for a, b in pairs)


def _there(positions: Any) -> Sequence[int]:
    return [position for position in positions if position is not None]


def _one(connection: DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    row = connection.execute(sql).fetchone()
    return tuple(int(value) for value in row or ())
