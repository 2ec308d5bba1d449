"""A selection: which rows were chosen for what and why, in the order of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.rows import WHY
from pipeline.site.contents import place, rows_by_uid, said
from pipeline.site.render import Grid, Link, Pages, cut, href, lines, page, short
from pipeline.site.views.data import erased_from
from registry.store.kinds import SelectionMeta

if TYPE_CHECKING:
    from pipeline.site.site import Asked, Site
    from registry.store.manifest import Manifest

_PICKS = """
SELECT row_uid, capability, reason, score, rank, answer FROM parquet.stored_picks
ORDER BY rank LIMIT ? OFFSET ?
"""
_LINES = 15  # a page has: they stand far from each other in large versions
_HEAD = ("rank", "row", "for", "why", "likeness", "what it says", "file and line")


def selection(site: Site, asked: Asked) -> bytes:
    """Show a selection and its rows, a page at a time."""
    found = site.catalog.manifest(asked.path["id"], SelectionMeta)
    number = asked.number("page", 0)
    picks = site.catalog.query(_PICKS, [_LINES, number * _LINES], only=[found.id]).rows
    rows = _rows(site, found, [pick[0] for pick in picks])
    shown = [_line(pick, rows.get(pick[0])) for pick in picks]
    erased, at = erased_from(site, found.id), f"/selection/{found.id}"
    return page(
        site,
        "selection",
        f"Selection {short(found.id)}",
        here="/data",
        erased=f"{erased:,} of its rows were erased." if erased else "",
        facts=_facts(found),
        tables=[*_parts(found.meta), Grid("Rows, in the order of training", _HEAD, lines(shown))],
        place=Pages.of(at, {}, number, len(shown), found.meta.rows, lines=_LINES),
    )


def _rows(site: Site, found: Manifest[SelectionMeta], uids: list[int]) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for parent in found.parents:
        if parent.role == "dataset":
            rows |= rows_by_uid(site, parent.id, [uid for uid in uids if uid not in rows])
    return rows


def _line(pick: tuple[Any, ...], row: dict[str, Any] | None) -> tuple[Any, ...]:
    uid, capability, reason, score, rank, answer = pick
    text = "erased, or of the base's own text" if row is None else said(row)
    if answer is not None:
        text += f"\nthe base's own answer, which is trained: {answer}"
    where = "" if row is None else place(row)
    link = Link(str(uid), href(f"/row/{uid}"))
    return (rank, link, capability, WHY.get(reason, reason), score, cut(text), where)


def _facts(found: Manifest[SelectionMeta]) -> list[tuple[str, Any]]:
    meta = found.meta
    return [
        ("Base", meta.base),
        ("Round of mending", str(meta.round) if meta.round else "none: the first"),
        ("Rows", f"{meta.rows:,}, {meta.replay_rows:,} of them replayed"),
        ("Made", meta.created_at[:19].replace("T", " ")),
        ("Lineage", Link("what it was made from", href(f"/lineage/{found.id}"))),
        ("Used by", Link("what came of it", href(f"/lineage/{found.id}", {"down": 1}))),
    ]


def _parts(meta: SelectionMeta) -> list[Grid]:
    parts = [
        (one.capability, WHY.get(one.reason, one.reason), one.rows, one.score) for one in meta.parts
    ]
    out = [
        *meta.set_aside.items(),
        *((f"leak: {kind}", count) for kind, count in meta.leaks.items()),
        *(
            (f"wanted for {name}: {meta.short_of.get(name, '')}", n)
            for name, n in meta.missing.items()
        ),
    ]
    head = ("for", "why", "rows", "mean likeness to what was lost")
    aside = Grid("Kept out or missing", ("what", "rows"), lines(out), "nothing was kept out")
    return [Grid("What is chosen", head, lines(parts)), aside]
