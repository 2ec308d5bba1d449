"""Compare the catalog's tables with what its own manifests say."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from registry.attach import connect, migrate
from registry.derive import add, derive_all

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# What each table says, whatever its own numbers are.
_COMPARED = {
    **{
        table: f"FROM catalog.{table}"
        for table in ("objects", "edges", "adapters", "alias_moves", "removals", "absent")
    },
    "nodes": "SELECT id, kind, created_at, label FROM catalog.nodes",
    "links": """
        SELECT child.id, parent.id, links.role FROM catalog.links
        LEFT JOIN catalog.nodes AS child ON child.number = links.child
        LEFT JOIN catalog.nodes AS parent ON parent.number = links.parent
    """,
}


Tables = dict[str, list[tuple[Any, ...]]]


def tables_of(connection: DuckDBPyConnection) -> Tables:
    """Read the tables of the attached catalog, links by the ids of their ends."""
    return {
        table: connection.execute(statement).fetchall() for table, statement in _COMPARED.items()
    }


def differing(found: Tables) -> list[tuple[str, int, int]]:
    """Compare tables with ones made anew of the manifests among them.

    Returns each table that differs, its lines too many and its lines missing.
    """
    fresh = connect(threads=1)
    try:
        fresh.execute("ATTACH ':memory:' AS catalog")
        migrate(fresh, 0)
        fresh.execute("BEGIN")
        add(fresh, (json.loads(text) for _, _, _, text in found["objects"]))
        derive_all(fresh)
        fresh.execute("COMMIT")
        expected = tables_of(fresh)
    finally:
        fresh.close()
    wrong = []
    for table, lines in found.items():
        here, there = Counter(lines), Counter(expected[table])
        extra, missing = (here - there).total(), (there - here).total()
        if extra or missing:
            wrong.append((table, extra, missing))
    return wrong
