"""Data: versions of datasets, their rows, rejects and near-duplicates, and what was erased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.site.contents import clusters_of, find, place, rejects_of, rows_at, rows_of, said
from pipeline.site.render import PAGE, Grid, Link, Pages, cut, href, lines, page, short
from registry.catalog.sql import fill
from registry.datasets.history.diff import GROUPS, changes_by_group
from registry.datasets.history.names import version_named, versions
from registry.errors import UserError

if TYPE_CHECKING:
    from pipeline.site.render import Cell
    from pipeline.site.site import Asked, Site
    from registry.datasets.choices import Group
    from registry.datasets.history.names import Version
    from registry.store.kinds import VersionMeta

_SPLITS = ("", "train", "dev", "test", "held")
_PARTS = ("rows", "near-duplicates", "rejects")
_MOST_TEXT = 200  # characters that are looked for
_SELECTIONS = """
SELECT selection_id, base, round, rows, replay_rows, created_at FROM selections
ORDER BY created_at DESC LIMIT 50
"""
_ERASED = """
SELECT erasure_id, erased_at, rows, reason, version_ids FROM erasures ORDER BY erased_at DESC
"""
_ERASED_FROM = """
SELECT sum(json_extract_string(erasure.manifest->'$.meta.redacted', edges.parent)::BIGINT)
FROM catalog.edges AS edges
JOIN catalog.objects AS erasure ON erasure.id = edges.child AND erasure.kind = 'erasure'
WHERE edges.role = 'redacted' AND edges.parent = ?
"""
_LOST = "SELECT adapter_id, selection_id, rows, erased_at FROM unreproducible"


def data(site: Site, asked: Asked) -> bytes:
    """List versions, selections and erasures."""
    del asked
    every = versions(site.catalog)
    rows = [_version_line(one) for one in reversed(every)]
    head = ("dataset", "version", "made", "rows", "train", "dev", "test", "held", "clusters")
    pairs = [(f"{one.name}@{one.id}", f"{one.name} {short(one.id)}") for one in every]
    return page(
        site,
        "data",
        "Data",
        here="/data",
        versions=Grid(
            "Versions of datasets, the newest first",
            (*head, "duplicates", "rejects", "licence", "tags"),
            lines(rows),
            "nothing was read in yet: gapmend ingest",
        ),
        pairs=pairs if len(pairs) > 1 else [],
        last=pairs[-1][0] if pairs else "",
        selections=_selections(site),
        erased=_erasures(site),
        lost=_lost(site),
    )


def _version_line(one: Version) -> tuple[Any, ...]:
    meta = one.meta
    splits = [meta.splits.get(split, 0) for split in _SPLITS[1:]]
    link = Link(one.name, _at(one))
    made = one.created_at[:16].replace("T", " ")
    counted = (meta.clusters, meta.duplicates, meta.rejects)
    return (link, short(one.id), made, meta.rows, *splits, *counted, meta.license, list(one.tags))


def version(site: Site, asked: Asked) -> bytes:
    """Show a version: its rows, groups of near-duplicates, or what could not be used."""
    found = version_named(site.catalog, asked.path["id"])
    part = asked.choice("part", _PARTS)
    split, text = asked.choice("split", _SPLITS), asked.one("text")
    number = asked.number("page", 0)
    if len(text) > _MOST_TEXT:
        raise UserError("the text is too long", expected=f"at most {_MOST_TEXT} characters")
    if part == "rows":
        table, total = _rows(site, found, split, text, number)
    elif part == "rejects":
        table, total = _rejects(site, found, number)
    else:
        table, total = _near(site, found, number)
    query = {"part": "" if part == "rows" else part, "split": split, "text": text}
    return page(
        site,
        "version",
        f"{found.name}, version {short(found.id)}",
        here="/data",
        facts=_facts(found),
        erased=_erased_note(site, found.id),
        links=[_part(found, one) for one in _PARTS],
        shown=part,
        filter=part == "rows",
        action=_at(found),
        splits=[(one, one or "all") for one in _SPLITS],
        split=split,
        text=text,
        table=table,
        place=Pages.of(f"/data/{found.name}@{found.id}", query, number, len(table.rows), total),
        what="groups" if part == "near-duplicates" else part,
    )


def diff(site: Site, asked: Asked) -> bytes:
    """Compare two versions row by row: how many rows of each group, and the first of one."""
    a, b = (version_named(site.catalog, asked.one(side)) for side in ("a", "b"))
    group = asked.choice("show", ("changed", *(one for one in GROUPS if one != "changed")))
    shown = next(one for one in GROUPS if one == group)
    found = site.once(("diff", a.id, b.id), lambda: _compared(site, a.id, b.id))
    query = {"a": f"{a.name}@{a.id}", "b": f"{b.name}@{b.id}"}
    rows = found.lines[shown]
    return page(
        site,
        "diff",
        "Two versions",
        here="/data",
        facts=[
            ("Before", Link(f"{a.name} {short(a.id)}, {a.meta.rows:,} rows", _at(a))),
            ("After", Link(f"{b.name} {short(b.id)}, {b.meta.rows:,} rows", _at(b))),
            ("The same in both", f"{found.same:,} rows"),
        ],
        links=[
            Link(f"{one}: {found.counts[one]:,}", href("/data/diff", {**query, "show": one}))
            for one in GROUPS
        ],
        shown=group,
        table=Grid(
            f"Rows that were {group}: the first {len(rows):,} of {found.counts[shown]:,}",
            ("where", "before", "after"),
            rows,
            "there are none",
        ),
    )


@dataclass(frozen=True)
class _Compared:
    """What two versions differ in: how many rows of each group, and the first as a table's."""

    same: int
    counts: dict[Group, int]
    lines: dict[Group, tuple[tuple[Cell, ...], ...]]


def _compared(site: Site, a: str, b: str) -> _Compared:
    """Compare two versions for all groups at once, which reads every row's hash of both."""
    with site.question():
        found = changes_by_group(site.ws.store, a, b, limit=PAGE)
    rows = {
        group: lines(
            (place(one.after or one.before or {}), _side(one.before), _side(one.after))
            for one in changes.shown
        )
        for group, changes in found.items()
    }
    any_group = found[GROUPS[0]]
    return _Compared(any_group.same, any_group.counts, rows)


def _side(row: dict[str, Any] | None) -> str:
    return "" if row is None else cut(f"[{row['split']}] {said(row)}")


def _at(one: Version) -> str:
    return href(f"/data/{one.name}@{one.id}")


def _part(one: Version, part: str) -> Link:
    query = {"part": "" if part == "rows" else part}
    return Link(part, href(f"/data/{one.name}@{one.id}", query))


def _facts(found: Version) -> list[tuple[str, Any]]:
    meta: VersionMeta = found.meta
    splits = ", ".join(f"{count:,} {name}" for name, count in meta.splits.items() if count)
    return [
        ("Made", found.created_at[:19].replace("T", " ")),
        ("Rows", f"{meta.rows:,}: {splits}"),
        ("Of records in its files", f"{meta.records:,}"),
        (
            "Duplicates",
            f"{meta.duplicates:,}, and {meta.clusters:,} clusters of rows that are alike",
        ),
        ("Leaks between splits", f"{meta.leaks.exact:,} exact, {meta.leaks.near:,} near"),
        ("Licence", meta.license or "not stated"),
        ("Tags", ", ".join(found.tags) or "none"),
        ("What came of it", Link("lineage", href(f"/lineage/{found.id}", {"down": 1}))),
    ]


def _rows(site: Site, found: Version, split: str, text: str, number: int) -> tuple[Grid, int]:
    version, first, title = (found.id, found.name), number * PAGE, "Rows"
    if text:
        with_it = find(site, version, split=split, text=text)
        total = len(with_it.positions)
        rows = [*rows_at(site, version, with_it.positions[first : first + PAGE]).values()]
        if total < with_it.total:
            title = f"Rows: the first {total:,} of {with_it.total:,} that have this text"
    else:
        total = found.meta.splits.get(split, 0) if split else found.meta.rows
        rows = rows_of(site, version, split=split, limit=PAGE, offset=first)
    shown = [
        (Link(str(row["row_uid"]), href(f"/row/{row['row_uid']}")), row["split"], cut(said(row)),
         place(row))
        for row in rows
    ]  # fmt: skip
    head = ("row", "split", "what it says", "file and line")
    return Grid(title, head, lines(shown), "none"), total


def _rejects(site: Site, found: Version, number: int) -> tuple[Grid, int]:
    rows = rejects_of(site, (found.id, found.name), limit=PAGE, offset=number * PAGE)
    shown = [
        (f"{one['source_file']}:{one['source_line']}", one["reason"], one["excerpt"])
        for one in rows
    ]
    head = ("file and line", "why", "how it begins")
    return Grid(
        "What could not be used", head, lines(shown), "all could be used"
    ), found.meta.rejects


def _near(site: Site, found: Version, number: int) -> tuple[Grid, int]:
    groups, total = clusters_of(site, (found.id, found.name), limit=PAGE, offset=number * PAGE)
    shown = [(count, cut(said(one), 300), cut(said(other), 300)) for count, one, other in groups]
    title = "Groups of rows that are alike, the largest first"
    return Grid(
        title, ("rows", "the first", "the last"), lines(shown), "no row is like another"
    ), total


def _erased_note(site: Site, version: str) -> str:
    count = erased_from(site, version)
    return f"{count:,} rows were erased from it." if count else ""


def erased_from(site: Site, thing: str) -> int:
    """Return how many rows were erased from a version or selection."""
    with site.catalog.reading() as connection:
        found = connection.execute(fill(_ERASED_FROM, [thing])).fetchone()
    return int(found[0] or 0) if found else 0


def _selections(site: Site) -> Grid:
    rows = [
        (Link(short(key), href(f"/selection/{key}")), *rest)
        for key, *rest in site.catalog.query(_SELECTIONS).rows
    ]
    head = ("selection", "base", "round", "rows", "replayed", "made")
    note = "nothing was chosen yet: gapmend select"
    return Grid("What was chosen to be trained on, the newest first", head, lines(rows), note)


def _erasures(site: Site) -> Grid:
    rows = [
        (
            Link(short(key), href(f"/thing/{key}")),
            at,
            rows,
            reason,
            [short(one) for one in of or ()],
        )
        for key, at, rows, reason, of in site.catalog.query(_ERASED).rows
    ]
    head = ("erasure", "when", "rows", "why", "from the versions")
    return Grid("Erasures", head, lines(rows), "nothing was erased")


def _lost(site: Site) -> Grid:
    rows = [
        (Link(short(key), href(f"/adapter/{key}")), short(selection), rows, at)
        for key, selection, rows, at in site.catalog.query(_LOST).rows
    ]
    head = ("adapter", "selection", "rows that are gone", "since")
    return Grid("Adapters that can't be trained again", head, lines(rows), "none")
