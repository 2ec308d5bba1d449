"""Where an object came from, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from registry.catalog import Catalog

Direction = Literal["up", "down"]

# {start} and {end} are the two columns of an edge: up goes from child to parent. UNION (not ALL)
# visits each object once, so that a graph with many ways to one ancestor stays small.
_REACHED = """
WITH RECURSIVE reached AS (
    SELECT ?::VARCHAR AS id
    UNION
    SELECT edges.{end} FROM reached JOIN edges ON edges.{start} = reached.id
)
"""
_NODES = (
    _REACHED
    + """
SELECT reached.id, coalesce(objects.kind, 'missing'),
       coalesce(manifest->>'$.meta.name', manifest->>'$.meta.stage', manifest->>'$.meta.subject',
                manifest->>'$.identity.name', manifest->>'$.meta.base', '')
FROM reached LEFT JOIN objects ON objects.id = reached.id
ORDER BY objects.created_at, reached.id
"""
)
_EDGES = (
    _REACHED
    + """
SELECT edges.child, edges.parent, edges.role
FROM edges JOIN reached ON reached.id = edges.{start}
ORDER BY edges.child, edges.role, edges.parent
"""
)


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

    def as_json(self) -> dict[str, Any]:
        """Return the graph as JSON values."""
        return asdict(self)


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


def lineage(catalog: Catalog, id_or_prefix: str, *, down: bool = False) -> Lineage:
    """Follow the edges from one committed object, all the way.

    Args:
        catalog: where the edges are.
        id_or_prefix: the object.
        down: follow what was made from it, not what it was made from.

    Raises:
        UserError: when the id is unknown or ambiguous.
    """
    root = catalog.manifest(id_or_prefix)["id"]
    start, end = ("parent", "child") if down else ("child", "parent")
    nodes = catalog.query(_NODES.format(start=start, end=end), [root])
    edges = catalog.query(_EDGES.format(start=start, end=end), [root])
    return Lineage(
        root,
        "down" if down else "up",
        tuple(Node(*row) for row in nodes.rows),
        tuple(Edge(*row) for row in edges.rows),
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
