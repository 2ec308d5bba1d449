"""The graph of lineage: where an object came from, and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from registry.catalog import tables as derive
from registry.catalog.sql import fill, literal
from registry.errors import UserError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from registry.catalog.catalog import Catalog

Direction = Literal["up", "down"]

# {start} and {end} are the two columns of a link: up goes from child to parent. UNION (not ALL)
# visits each object once, so that a graph with many ways to one ancestor stays small.
_REACHED = """
CREATE OR REPLACE TEMP TABLE reached AS
WITH RECURSIVE walk AS (
    SELECT ?::INTEGER AS number
    UNION
    SELECT links.{end} FROM walk JOIN catalog.links ON links.{start} = walk.number
)
FROM walk
"""
_NODES = """
SELECT number, id, coalesce(kind, 'missing'), label
FROM catalog.nodes WHERE number IN {reached} ORDER BY created_at, id
"""
# Up to so many numbers are written out: only the blocks that they are in are read.
_FEW = 1000
_EDGES = """
SELECT links.child, links.parent, links.role
FROM catalog.links JOIN reached ON reached.number = links.{start}
"""
# The other datasets that have a version: its own label is the name of the first.
_ALSO_CALLED = """
SELECT links.parent, list(DISTINCT place.label ORDER BY place.label)
FROM catalog.links JOIN catalog.nodes AS place ON place.number = links.child
WHERE links.parent IN ? AND place.kind = 'places' GROUP BY 1
"""
_PUSHED = """
SELECT id FROM catalog.objects
WHERE kind = 'push' AND starts_with(manifest->>'$.meta.revision', ?)
ORDER BY created_at DESC, id DESC LIMIT 1
"""
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_NODE = re.compile(r"[^A-Za-z0-9 ._@:/+-]")


@dataclass(frozen=True, slots=True)
class Node:
    """An object in a lineage: its kind, and a name for people (may be empty)."""

    id: str
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class Edge:
    """The child was made from the parent, which played this role."""

    child: str
    parent: str
    role: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """All that one object was made from (`up`) or that was made from it (`down`)."""

    root: str
    direction: Direction
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def lineage(catalog: Catalog, thing: str, *, down: bool = False) -> Lineage:
    """Follow the edges from one committed object, all the way.

    Args:
        catalog: where the edges are.
        thing: the object: an alias, its id or a prefix of it, or a commit on the Hub that it was
            pushed as (7 digits at least).
        down: follow what was made from it, not what it was made from.

    Raises:
        UserError: when it is unknown or ambiguous.
    """
    start, end = ("parent", "child") if down else ("child", "parent")
    with catalog.reading() as connection:
        root = find(connection, thing)
        number = derive.numbers(connection, [root])[root]
        connection.execute(fill(_REACHED.format(start=start, end=end), [number]))
        few = connection.execute("FROM reached").fetchmany(_FEW)
        reached = literal(tuple(row[0] for row in few)) if len(few) < _FEW else "(FROM reached)"
        nodes = connection.execute(_NODES.format(reached=reached)).fetchall()
        links = connection.execute(_EDGES.format(start=start)).fetchall()
        versions = (-1, *(number for number, _, kind, _ in nodes if kind == "dataset_version"))
        called = dict(connection.execute(fill(_ALSO_CALLED, [versions])).fetchall())
    ids = {number: object_id for number, object_id, _, _ in nodes}
    edges = sorted((ids[child], role, ids[parent]) for child, parent, role in links)
    return Lineage(
        root,
        "down" if down else "up",
        tuple(
            Node(key, kind, ", ".join(dict.fromkeys([label, *called.get(number, ())])))
            for number, key, kind, label in nodes
        ),
        tuple(Edge(child, parent, role) for child, role, parent in edges),
    )


def find(connection: DuckDBPyConnection, thing: str) -> str:
    """Return the full id of what an alias, an id, a prefix or a commit on the Hub stands for.

    Raises:
        UserError: it stands for nothing, or for several objects.
    """
    target = derive.alias_state(connection, thing)[0]
    if target is not None:
        return target
    try:
        return derive.resolve(connection, thing)
    except UserError:
        pushed = None
        if _COMMIT.fullmatch(thing.lower()):
            pushed = connection.execute(fill(_PUSHED, [thing.lower()])).fetchone()
        if pushed is None:
            raise
        return str(pushed[0])


def dot(graph: Lineage) -> str:
    """Write a lineage in Graphviz's language, arrows from parent to child."""
    lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
    for node in graph.nodes:
        label = "\\n".join(_escaped(part) for part in (node.kind, node.label, node.id[:12]) if part)
        lines.append(f'  "{node.id[:12]}" [label="{label}"];')
    for edge in graph.edges:
        ends = f'"{edge.parent[:12]}" -> "{edge.child[:12]}"'
        lines.append(f'  {ends} [label="{_escaped(edge.role)}"];')
    return "\n".join([*lines, "}", ""])


def mermaid(graph: Lineage) -> str:
    """Write a lineage as a Mermaid flowchart, which Markdown pages show; arrows as in `dot`."""
    lines = ["flowchart LR"]
    for node in graph.nodes:
        label = "<br>".join(
            _entities(part) for part in (node.kind, node.label, node.id[:12]) if part
        )
        lines.append(f'  n{node.id[:12]}["{label}"]')
    for edge in graph.edges:
        role = _entities(edge.role)
        lines.append(f'  n{edge.parent[:12]} -->|"{role}"| n{edge.child[:12]}')
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _entities(text: str) -> str:
    """Write everything that Mermaid or HTML could read as its own as a character's number."""
    return _NODE.sub(lambda found: f"#{ord(found[0])};", text)
