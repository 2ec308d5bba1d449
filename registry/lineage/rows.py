"""Lineage of rows: the rows and source files a thing was made of, and all that a row is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.catalog.sql import fill
from registry.errors import StoreRequestError
from registry.lineage.bitmaps import CHUNK_UIDS
from registry.lineage.graph import Node, lineage

if TYPE_CHECKING:
    from registry.catalog.catalog import Catalog
    from registry.lineage.graph import Lineage

# What is an adapter or is made of one, nothing learned in between: rows that an adapter was trained
# on are in all of these that it leads to.
_ARTIFACTS = ("adapter", "alias", "export", "merge", "model", "promotion", "push", "signature")

_TAUGHT_BY = """
SELECT DISTINCT selection_id FROM adapter_selections WHERE adapter_id IN ?
"""
_SOURCES = """
SELECT place.dataset, place.version_id, place.source, place.source_file, count(*),
       count(taught.row_uid)
FROM row_places AS place
LEFT JOIN (
    SELECT DISTINCT row_uid FROM parquet.stored_picks WHERE object_id IN ?
) AS taught USING (row_uid)
GROUP BY ALL ORDER BY ALL
"""
_OTHER_PLACES = "SELECT child FROM catalog.edges WHERE role = 'version' AND parent IN ?"
_PLACES = """
SELECT version_id, dataset, source, source_file, source_line, split
FROM row_places WHERE row_uid = ? ORDER BY ALL
"""
# The bitmaps say which selections chose a row: the picks of no other are read.
_CHOSE = """
SELECT selection.id FROM parquet.stored_bitmaps AS bits
JOIN objects AS selection ON selection.id = bits.object_id
WHERE bits.chunk = ? AND get_bit(bits.bitmap::BIT, ?) = 1
ORDER BY selection.created_at DESC, selection.id
"""
_PICKS = """
SELECT object_id, capability, reason, rank FROM parquet.stored_picks
WHERE row_uid = ? ORDER BY ALL
"""
# As the macro adapters_that_saw has it, from selections that are known.
_SAW = """
WITH RECURSIVE taught AS (
    SELECT child AS id FROM edges WHERE parent IN ?
    UNION
    SELECT edges.child FROM taught
    JOIN edges ON edges.parent = taught.id
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
)
SELECT id FROM taught JOIN objects USING (id) WHERE kind IN ('adapter', 'model') ORDER BY id
"""
_LED_TO = """
WITH RECURSIVE made AS (
    SELECT id FROM objects WHERE id IN ?
    UNION
    SELECT edges.child FROM made
    JOIN edges ON edges.parent = made.id
    JOIN objects AS child ON child.id = edges.child AND child.kind IN ?
)
SELECT id FROM made JOIN objects USING (id) ORDER BY objects.created_at, id
"""


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file of a dataset version.

    Attributes:
        dataset: the name of a dataset that has the version.
        version_id: the version.
        source: the name of what was read, as rows have it.
        file: relative to the workspace.
        rows: of the version, from this file.
        taught: how many of them the adapter in question was trained on.
    """

    dataset: str
    version_id: str
    source: str
    file: str
    rows: int
    taught: int


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row is in a dataset version, and the file and line (from 1) that it was read from."""

    version_id: str
    dataset: str
    source: str
    file: str
    line: int
    split: str


@dataclass(frozen=True, slots=True)
class SelectionPick:
    """A selection that chose a row: for which capability, why, at which place in the order."""

    selection_id: str
    capability: str
    reason: str
    rank: int


@dataclass(frozen=True, slots=True)
class RowLineage:
    """Where a row came from and everything that it is in.

    `chosen` counts the selections that chose it, of which `picks` may be the newest; `made` are the
    adapters that were trained on it and all that is made of them: merges, models, aliases,
    promotions, pushes, in the order of time.
    """

    row_uid: int
    places: tuple[RowPlace, ...]
    picks: tuple[SelectionPick, ...]
    made: tuple[Node, ...]
    chosen: int = 0


def sources_of(catalog: Catalog, thing: str) -> tuple[RowSource, ...]:
    """Return the source files that a thing goes back to, with how many rows of each.

    Args:
        catalog: where it is.
        thing: as `lineage` takes it: an alias, an id, a prefix, a commit on the Hub.

    Raises:
        UserError: it is unknown or ambiguous.
    """
    graph = lineage(catalog, thing)
    read = [node.id for node in graph.nodes]
    with catalog.reading() as connection:  # of the same versions, as other datasets have them
        places = connection.execute(fill(_OTHER_PLACES, [("", *read)])).fetchall()
    read += [row[0] for row in places]
    adapters = _adapters_in(graph)
    taught = catalog.query(_TAUGHT_BY, [("", *adapters)], only=read).rows
    selections = ("", *(row[0] for row in taught), *_itself(graph, "selection"))
    found = catalog.query(_SOURCES, [selections], only=read)
    return tuple(RowSource(*row) for row in found.rows)


def row_lineage(catalog: Catalog, row_uid: int, *, most: int | None = None) -> RowLineage:
    """Return where a row came from, and what it went into up to every push.

    Reads the references of every dataset version, the bitmaps of every selection and the picks of
    those that chose the row.

    Args:
        catalog: where they are.
        row_uid: the row.
        most: read the picks of so many of these selections, the newest; by default of all.

    Raises:
        UserError: no version has such a row, and no selection had it.
    """
    places = catalog.query(_PLACES, [row_uid]).rows
    bit = divmod(row_uid, CHUNK_UIDS)
    chose = [row[0] for row in catalog.query(_CHOSE, bit).rows]
    if not places and not chose:  # an erased row is in no version, and what chose it is known
        raise StoreRequestError(
            f"no dataset version has a row {row_uid}",
            fix='list some with `gapmend sql "select row_uid, dataset from rows limit 9"`',
        )
    picks = catalog.query(_PICKS, [row_uid], only=chose[:most]).rows if chose else []
    saw = [row[0] for row in catalog.query(_SAW, [tuple(chose)]).rows] if chose else []
    made = catalog.query(_LED_TO, [tuple(saw), _ARTIFACTS]).rows if saw else []
    return RowLineage(
        row_uid,
        tuple(RowPlace(*row) for row in places),
        tuple(SelectionPick(*row) for row in picks),
        _nodes(catalog, [row[0] for row in made]),
        len(chose),
    )


def _adapters_in(graph: Lineage) -> list[str]:
    """Return the adapters that the root is, or is made of, through artifacts alone."""
    kinds = {node.id: node.kind for node in graph.nodes}
    parents: dict[str, list[str]] = {}
    for edge in graph.edges:
        parents.setdefault(edge.child, []).append(edge.parent)
    seen: set[str] = set()
    left = [graph.root]
    while left:
        at = left.pop()
        if at not in seen and kinds[at] in _ARTIFACTS:
            seen.add(at)
            left += parents.get(at, [])
    tuned = {"adapter"} if "adapter" in {kinds[one] for one in seen} else {"model"}
    return sorted(one for one in seen if kinds[one] in tuned)


def _itself(graph: Lineage, kind: str) -> list[str]:
    return [node.id for node in graph.nodes if node.id == graph.root and node.kind == kind]


def _nodes(catalog: Catalog, ids: list[str]) -> tuple[Node, ...]:
    if not ids:
        return ()
    statement = fill("SELECT id, kind, label FROM catalog.nodes WHERE id IN ?", [tuple(ids)])
    with catalog.reading() as connection:
        found = {row[0]: Node(*row) for row in connection.execute(statement).fetchall()}
    return tuple(found[one] for one in ids)
