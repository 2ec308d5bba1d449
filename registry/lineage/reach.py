"""The reach of rows: the versions that hold them and all that was made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from registry.catalog.catalog import Catalog

# Down from the selections to what was trained on them, as adapters_that_saw goes, and from there to
# what was made of the weights.
_MADE = """
WITH RECURSIVE held AS (
    SELECT DISTINCT object_id AS id FROM parquet.stored_refs WHERE row_uid IN ?
), chosen AS (
    SELECT DISTINCT object_id AS id FROM parquet.stored_picks WHERE row_uid IN ?
), measured AS (
    SELECT DISTINCT object_id AS id FROM parquet.stored_samples WHERE row_uid IN ?
), taught AS (
    SELECT edges.child AS id FROM chosen JOIN edges ON edges.parent = chosen.id
    UNION
    SELECT edges.child
    FROM taught
    JOIN edges ON edges.parent = taught.id
    JOIN objects AS parent ON parent.id = edges.parent
    WHERE edges.role IN ('start', 'part')
       OR (edges.role = 'run' AND (parent.manifest->>'$.meta.stage') = 'train')
), tuned AS (
    SELECT taught.id FROM taught JOIN objects USING (id)
    WHERE objects.kind = 'adapter'
       OR (objects.kind = 'model' AND (objects.manifest->>'$.identity.changed') IS NOT NULL)
), made AS (
    FROM tuned
    UNION
    FROM held
    UNION
    SELECT edges.child
    FROM made
    JOIN edges ON edges.parent = made.id
    JOIN objects ON objects.id = edges.child
    WHERE objects.kind IN ('merge', 'model', 'export', 'push')
), everything AS (
    FROM made UNION FROM chosen UNION FROM measured
), called AS (
    SELECT version_id, string_agg(name, ', ' ORDER BY created_at, name) AS names
    FROM dataset_versions GROUP BY version_id
)
SELECT objects.kind, everything.id,
       coalesce(CASE objects.kind
           WHEN 'push' THEN concat_ws('@', objects.manifest->>'$.meta.repo',
                                      left(objects.manifest->>'$.meta.revision', 12))
           WHEN 'eval' THEN concat_ws(' ', objects.manifest->>'$.meta.subject',
                                      objects.manifest->>'$.meta.split')
           WHEN 'adapter' THEN concat_ws(' ', objects.manifest->>'$.meta.base', 'round',
                                         objects.manifest->>'$.meta.round')
       END, called.names, objects.manifest->>'$.meta.name', objects.manifest->>'$.meta.base', '')
FROM everything JOIN objects USING (id)
LEFT JOIN called ON called.version_id = everything.id
ORDER BY objects.kind, objects.created_at, everything.id
"""
_PLACES = """
WITH stands AS (
    SELECT row_uid, source, sources FROM parquet.stored_refs
    UNION ALL
    SELECT row_uid, source, sources FROM parquet.stored_places
)
SELECT DISTINCT source, place.file, place.line
FROM stands, unnest(sources) AS listed(place)
WHERE row_uid IN ?
ORDER BY ALL
"""
_NEAR = """
SELECT count(DISTINCT row_uid) FROM parquet.stored_refs
WHERE row_uid NOT IN ? AND cluster IN (
    SELECT cluster FROM parquet.stored_refs WHERE row_uid IN ?
)
"""


@dataclass(frozen=True, slots=True)
class ReachedObject:
    """An object that holds the rows or was made of them, with a name for people."""

    kind: str
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """Where a row stands outside of the store: a dataset's source file and the line."""

    dataset: str
    file: str
    line: int


@dataclass(frozen=True)
class Reach:
    """How far rows have come.

    Attributes:
        uids: the rows.
        objects: what holds them (versions, evaluations, selections) and what was made of what was
            trained on them (adapters, merges, models, exports, pushes), by kind and age.
        places: where they stand in source files, which are not gapmend's to change.
        near: how many near-duplicates of them stay.
    """

    uids: tuple[int, ...]
    objects: tuple[ReachedObject, ...]
    places: tuple[SourcePlace, ...]
    near: int

    def of(self, *kinds: str) -> list[ReachedObject]:
        """Return the objects of these kinds."""
        return [one for one in self.objects if one.kind in kinds]


def reach(catalog: Catalog, uids: Collection[int]) -> Reach:
    """Return what these rows, at least one, have reached."""
    these = tuple(sorted(uids))
    made = catalog.query(_MADE, [these] * 3).rows
    places = catalog.query(_PLACES, [these]).rows
    near = catalog.query(_NEAR, [these] * 2).rows[0][0]
    return Reach(
        these,
        tuple(ReachedObject(*row) for row in made),
        tuple(SourcePlace(*row) for row in places),
        int(near),
    )
