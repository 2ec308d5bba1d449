"""The report of `gapmend lineage`: a tree, a graph, source files, or where one row went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    from registry.lineage.graph import Lineage

_MOST_LINES = 400  # of a tree; --json has all
ID_DIGITS = 12


def lineage_tree(graph: Lineage) -> Tree:
    """Return the lineage as a tree from its root; what was shown above is not unfolded again."""
    labels = {
        node.id: f"{node.kind} {node.id[:ID_DIGITS]}  {node.label}".rstrip() for node in graph.nodes
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
