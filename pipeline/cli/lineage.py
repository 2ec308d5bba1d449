"""The answer of `gapmend lineage`: as a tree, as a graph or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.cli.verb import Answer
from pipeline.report.lineage import ID_DIGITS, lineage_tree
from pipeline.report.tables import table

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace


def answer_for(ws: Workspace, thing: str | int, *, form: str, down: bool) -> Answer:
    """Return the lineage of a thing (an id, an alias, a Hub commit) or of a row (its uid).

    Raises:
        UserError: there is no such thing.
    """
    from registry.lineage import graph

    if isinstance(thing, int):
        found = ws.row_lineage(thing)
        places = [
            (p.dataset, p.version_id[:ID_DIGITS], f"{p.file}:{p.line}", p.split)
            for p in found.places
        ]
        picks = [(p.selection_id[:ID_DIGITS], p.capability, p.reason, p.rank) for p in found.picks]
        made = [(node.kind, node.id[:ID_DIGITS], node.label) for node in found.made]
        return Answer(
            found,
            [
                table("where it is", ("dataset", "version", "from", "split"), places),
                table("chosen by", ("selection", "capability", "reason", "rank"), picks),
                table("what it is in", ("kind", "id", ""), made),
            ],
        )
    if form == "files":
        sources = ws.source_files(thing)
        rows = [(s.dataset, s.version_id[:ID_DIGITS], s.file, s.rows, s.taught) for s in sources]
        columns = ("dataset", "version", "file", "rows", "taught it")
        return Answer(sources, [table("source files", columns, rows)])
    nodes = ws.lineage(thing, down=down)
    if form == "tree":
        return Answer(nodes, [lineage_tree(nodes)])
    drawn = graph.dot(nodes) if form == "dot" else graph.mermaid(nodes)
    return Answer(nodes, [Text(drawn)])
