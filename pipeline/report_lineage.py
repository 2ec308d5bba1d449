"""What `gapmend lineage` answers: a tree, a graph, source files, or where one row went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from pipeline.tables import table
from pipeline.verb import Answer

if TYPE_CHECKING:
    from registry.catalog import Catalog
    from registry.lineage import Lineage

_MOST_LINES = 400  # of a tree; --json has all
_ID = 12


def answer_for(catalog: Catalog, thing: str | int, *, form: str, down: bool) -> Answer:
    """Return the lineage of a thing (an id, an alias, a Hub commit) or of a row (its uid).

    Raises:
        UserError: there is no such thing.
    """
    from registry import lineage as graph
    from registry.provenance import row_lineage, sources_of

    if isinstance(thing, int):
        found = row_lineage(catalog, thing)
        places = [
            (p.dataset, p.version_id[:_ID], f"{p.file}:{p.line}", p.split) for p in found.places
        ]
        picks = [(p.selection_id[:_ID], p.capability, p.reason, p.rank) for p in found.picks]
        made = [(node.kind, node.id[:_ID], node.label) for node in found.made]
        return Answer(
            found,
            [
                table("where it is", ("dataset", "version", "from", "split"), places),
                table("chosen by", ("selection", "capability", "reason", "rank"), picks),
                table("what it is in", ("kind", "id", ""), made),
            ],
        )
    if form == "files":
        sources = sources_of(catalog, thing)
        rows = [(s.dataset, s.version_id[:_ID], s.file, s.rows, s.taught) for s in sources]
        columns = ("dataset", "version", "file", "rows", "taught it")
        return Answer(sources, [table("source files", columns, rows)])
    nodes = graph.lineage(catalog, thing, down=down)
    if form == "tree":
        return Answer(nodes, [lineage_tree(nodes)])
    drawn = graph.dot(nodes) if form == "dot" else graph.mermaid(nodes)
    return Answer(nodes, [Text(drawn)])


def lineage_tree(graph: Lineage) -> Tree:
    """Return the lineage as a tree from its root; what was shown above is not unfolded again."""
    labels = {
        node.id: f"{node.kind} {node.id[:_ID]}  {node.label}".rstrip() for node in graph.nodes
    }
    down = graph.direction == "down"
    steps: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        at, to = (edge.parent, edge.child) if down else (edge.child, edge.parent)
        steps.setdefault(at, []).append((to, edge.role))
    tree = Tree(Text(labels[graph.root]))
    seen = {graph.root}
    # A stack and no recursion: a chain of a thousand rounds is a lineage too.
    waiting = [(tree, to, role) for to, role in reversed(steps.get(graph.root, []))]
    lines = 0
    while waiting:
        branch, node, role = waiting.pop()
        if lines == _MOST_LINES:
            tree.add(Text(f"… and more: {len(graph.nodes)} things in all (--json has them)"))
            break
        lines += 1
        again = " …" if node in seen and steps.get(node) else ""
        made = branch.add(Text(f"{role}: {labels[node]}{again}"))
        if node not in seen:
            seen.add(node)
            waiting += [(made, to, part) for to, part in reversed(steps.get(node, []))]
    return tree
