"""Rows of dataset versions, read from where they stand: never more of a version than is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.catalog.sql import fill
from registry.datasets.versions import few
from registry.datasets.versions.query import open_connection, records, version_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.site.site import Site

MOST_FOUND = 10_000
"""Rows that have a text, and that are shown."""

# The content is searched as it is stored; which rows of the version have it is known then.
_FOUND = """
CREATE TEMP TABLE found AS SELECT DISTINCT row_uid FROM (
    SELECT row_uid, unnest(list_concat(
        coalesce(messages, []), coalesce(chosen, []), coalesce(rejected, []))).content AS said
    FROM v_rows
) WHERE contains(lower(said), lower(?))
"""
_AMONG = "FROM v_refs SEMI JOIN found USING (row_uid) {chosen}"
_CLUSTERS = """
SELECT cluster, count(*) AS rows, min(position) AS first, max(position) AS last,
       count(*) OVER () AS total
FROM v_refs GROUP BY cluster HAVING count(*) > 1
ORDER BY rows DESC, cluster LIMIT {limit} OFFSET {offset}
"""
_REJECTS = """
SELECT source_file, source_line, reason, excerpt FROM v_rejects
ORDER BY source_file, source_line LIMIT {limit} OFFSET {offset}
"""


@dataclass(frozen=True)
class Found:
    """Rows of a version that have a text: how many, and where the first `MOST_FOUND` are."""

    total: int
    positions: tuple[int, ...]


def rows_of(
    site: Site, version: tuple[str, str], *, split: str, limit: int, offset: int
) -> list[dict[str, Any]]:
    """Return some rows of a version, in its order.

    Args:
        site: where it is.
        version: its id, and the dataset's name.
        split: of this split, or all.
        limit: at most so many.
        offset: after so many.
    """
    files = version_files(site.ws.store, *version)
    if split:
        positions = few.positions_in(files, split, limit=limit, offset=offset)
    else:
        positions = [*range(offset, min(offset + limit, few.count(files)))]
    return [*few.rows_placed(files, positions).values()]


def rows_at(
    site: Site, version: tuple[str, str], positions: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Return the rows at these positions of a version."""
    return few.rows_placed(version_files(site.ws.store, *version), positions)


def find(site: Site, version: tuple[str, str], *, split: str, text: str) -> Found:
    """Look for a text in every row of a version, whatever its case: which takes long.

    What was found is remembered: not the rows, but where they are.
    """

    def look() -> Found:
        files = version_files(site.ws.store, *version)
        chosen = fill("WHERE split = ?", [split]) if split else ""
        among = _AMONG.format(chosen=chosen)
        with site.question(), open_connection(site.ws.store, v=files) as connection:
            connection.execute(fill(_FOUND, [text]))
            (counted,) = records(connection, f"SELECT count(*) AS total {among}")
            first = f"SELECT position {among} ORDER BY position LIMIT {MOST_FOUND}"
            at = records(connection, first)
        return Found(int(counted["total"]), tuple(one["position"] for one in at))

    return site.once(("found", version, split, text), look)


def rows_by_uid(site: Site, version: str, uids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return those of some rows that a version has, by their uids."""
    return few.rows_by_uid(version_files(site.ws.store, version), uids) if uids else {}


def clusters_of(
    site: Site, version: tuple[str, str], *, limit: int, offset: int
) -> tuple[list[tuple[int, dict[str, Any], dict[str, Any]]], int]:
    """Return groups of rows that are alike, the largest first: how many, two of them; the count."""
    files = version_files(site.ws.store, *version)
    with open_connection(site.ws.store, v=files) as connection:
        found = records(connection, _CLUSTERS.format(limit=limit, offset=offset))
    rows = few.rows_placed(files, [one[end] for one in found for end in ("first", "last")])
    groups = [(one["rows"], rows.get(one["first"], {}), rows.get(one["last"], {})) for one in found]
    return groups, int(found[0]["total"]) if found else 0


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
