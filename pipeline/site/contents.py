"""Rows of dataset versions, read from where they stand: never more of a version than is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.catalog.sql import fill
from registry.datasets.versions.query import open_connection, records, rows_at, version_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyConnection

    from pipeline.site.site import Site

_AT = "SELECT position FROM v_refs WHERE row_uid IN ?"
_SPLIT = "SELECT position FROM v_refs {chosen} ORDER BY position LIMIT {limit} OFFSET {offset}"
# The content is searched as it is stored; which rows of the version have it is known then.
_FOUND = """
SELECT row_uid FROM v_rows WHERE len(list_filter(
    list_concat(coalesce(messages, []), coalesce(chosen, []), coalesce(rejected, [])),
    lambda turn: contains(lower(turn.content), lower(?)))) > 0
"""
_CLUSTERS = """
SELECT cluster, count(*) AS rows, min(position) AS first, max(position) AS last
FROM v_refs GROUP BY cluster HAVING count(*) > 1
ORDER BY rows DESC, cluster LIMIT {limit} OFFSET {offset}
"""
_HOW_MANY = """
SELECT count(*) AS total FROM (SELECT 1 FROM v_refs GROUP BY cluster HAVING count(*) > 1)
"""
_REJECTS = """
SELECT source_file, source_line, reason, excerpt FROM v_rejects
ORDER BY source_file, source_line LIMIT {limit} OFFSET {offset}
"""


def rows_of(
    site: Site, version: tuple[str, str], *, split: str, text: str, limit: int, offset: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Return some rows of a version, in its order, and how many there are.

    Args:
        site: where it is.
        version: its id, and the dataset's name.
        split: of this split, or all.
        text: with this in a turn, whatever the case; or all.
        limit: at most so many.
        offset: after so many.

    Returns:
        The rows; and the count where it had to be counted, None where the version's own is right.
    """
    with open_connection(site.ws.store, v=version_files(site.ws.store, *version)) as connection:
        parts = [fill("split = ?", [split])] if split else []
        if text:
            parts.append(f"row_uid IN ({fill(_FOUND, [text])})")
        chosen = f"WHERE {' AND '.join(parts)}" if parts else ""
        at = records(connection, _SPLIT.format(chosen=chosen, limit=limit, offset=offset))
        total = None
        if text:
            (counted,) = records(connection, f"SELECT count(*) AS total FROM v_refs {chosen}")  # noqa: S608 - ours
            total = counted["total"]
        return rows_at(connection, "v", [one["position"] for one in at]), total


def rows_by_uid(site: Site, version: str, uids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return those of some rows that a version has, by their uids."""
    if not uids:
        return {}
    with open_connection(site.ws.store, v=version_files(site.ws.store, version)) as connection:
        at = records(connection, fill(_AT, [tuple(uids)]))
        found = rows_at(connection, "v", [one["position"] for one in at])
    return {row["row_uid"]: row for row in found}


def clusters_of(
    site: Site, version: tuple[str, str], *, limit: int, offset: int
) -> tuple[list[tuple[int, dict[str, Any], dict[str, Any]]], int]:
    """Return groups of rows that are alike, the largest first: how many, two of them; the count."""
    with open_connection(site.ws.store, v=version_files(site.ws.store, *version)) as connection:
        found = records(connection, _CLUSTERS.format(limit=limit, offset=offset))
        (counted,) = records(connection, _HOW_MANY)
        rows = _at(connection, [one[end] for one in found for end in ("first", "last")])
    groups = [(one["rows"], rows.get(one["first"], {}), rows.get(one["last"], {})) for one in found]
    return groups, int(counted["total"])


def rejects_of(
    site: Site, version: tuple[str, str], *, limit: int, offset: int
) -> list[dict[str, Any]]:
    """Return what could not be used of a version's files."""
    with open_connection(site.ws.store, v=version_files(site.ws.store, *version)) as connection:
        return records(connection, _REJECTS.format(limit=limit, offset=offset))


def said(row: dict[str, Any]) -> str:
    """Return what a row says, a turn a line."""
    return "\n".join(f"{role}: {text}" for role, text in turns(row))


def turns(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a row's turns: the role, or which of two answers, and the text."""
    found = [(str(turn["role"]), str(turn["content"] or "")) for turn in row.get("messages") or ()]
    for which in ("chosen", "rejected"):
        found += [(which, str(turn["content"] or "")) for turn in row.get(which) or ()]
    if row.get("label") is not None:
        found.append(("label", "good" if row["label"] else "bad"))
    if row.get("tools"):
        found.append(("tools", str(row["tools"])))
    return found


def place(row: dict[str, Any]) -> str:
    """Return the file and line that a row was read from."""
    return f"{row['source_file']}:{row['source_line']}"


def _at(connection: DuckDBPyConnection, positions: Sequence[int]) -> dict[int, dict[str, Any]]:
    return {row["position"]: row for row in rows_at(connection, "v", sorted({*positions}))}
