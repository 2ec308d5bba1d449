"""Adapters side by side: settings that differ, scores, differences item by item, curves, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.verdicts.stats import PairedItems, benjamini_hochberg, change_p, paired_difference
from pipeline.pages.account import curves_of
from pipeline.pages.charts.training import drawn_curves
from pipeline.pages.tables import span
from pipeline.site.charts import drawn, shown
from pipeline.site.evaluations import BASE, Subject, subjects
from pipeline.site.render import Grid, Link, href, lines, page, short
from pipeline.workspace.durations import in_time
from pipeline.workspace.store import adapter_named
from registry.errors import UserError
from registry.lineage.adapter_facts import settings_of
from registry.store.kinds import RunMeta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from pipeline.pages.charts import Picture
    from pipeline.site.site import Asked, Site

_FEWEST, _MOST = 2, 8
_PAIRED = """
SELECT pair.before, pair.after, list(a.score ORDER BY a.row_uid), list(b.score ORDER BY a.row_uid),
       list(a.cluster ORDER BY a.row_uid)
FROM (VALUES ?) AS pair(before, after)
JOIN parquet.stored_samples AS a ON a.object_id = pair.before
JOIN parquet.stored_samples AS b ON b.object_id = pair.after AND b.row_uid = a.row_uid
GROUP BY ALL
"""


def compare(site: Site, asked: Asked) -> bytes:
    """Lay adapters side by side, the first of them as what the others are compared with."""
    ids = _chosen(site, asked)
    found = subjects(site, [BASE, *ids])
    return page(
        site,
        "compare",
        "Side by side",
        here="/adapters",
        first=short(ids[0]),
        who=_who(site, ids),
        settings=_settings(site, ids),
        scores=_scores(found, ids),
        differences=site.once(("differences", *ids), lambda: _differences(site, found, ids)),
        pictures=shown(_curves(site, ids), "/compare", {"id": ids}),
    )


def chart(site: Site, asked: Asked) -> Response:
    """Draw a curve of all of them."""
    ids = _chosen(site, asked)
    return drawn(site, ("compare", *ids), _curves(site, ids), asked.path["name"])


def _chosen(site: Site, asked: Asked) -> list[str]:
    named = [one for one in asked.query.get("id", ()) if one][: _MOST + 1]
    ids = [*dict.fromkeys(adapter_named(site.ws, one) for one in named)]
    if not _FEWEST <= len(ids) <= _MOST:
        raise UserError(
            f"{len(ids)} adapters were chosen", expected=f"{_FEWEST} to {_MOST} of the adapters"
        )
    return ids


def _who(site: Site, ids: Sequence[str]) -> Grid:
    shown_of = ("base", "method", "round", "rows", "steps", "tokens", "trained_tokens", "loss")
    rows = []
    for key in ids:
        meta = site.catalog.manifest(key).meta.as_json()
        figures = [meta.get(name) for name in shown_of]
        seconds = meta.get("seconds")
        took = "" if seconds is None else in_time(float(seconds))
        rows.append((Link(short(key), href(f"/adapter/{key}")), *figures, took))
    head = ("adapter", *(name.replace("_", " ") for name in shown_of), "time in steps")
    return Grid("What they are and what they cost", head, lines(rows))


def _settings(site: Site, ids: Sequence[str]) -> Grid:
    every = [settings_of(site.catalog, site.catalog.manifest(key)) for key in ids]
    names = sorted({name for one in every for name in one})
    rows = [
        (name, *("" if one.get(name) is None else str(one[name]) for one in every))
        for name in names
        if len({str(one.get(name)) for one in every}) > 1
    ]
    head = ("setting", *map(short, ids))
    return Grid("Settings that are not the same", head, lines(rows), "no setting differs")


def _scores(found: Sequence[Subject], ids: Sequence[str]) -> Grid:
    rows = [
        (one.name, one.split, one.items, *(_score(one, model) for model in (BASE, *ids)))
        for one in found
    ]
    head = ("capability or guard", "split", "items", BASE, *map(short, ids))
    return Grid("Scores with 95% intervals", head, lines(rows), "none of them was measured yet")


def _score(one: Subject, model: str) -> str:
    found = one.of.get(model)
    return "" if found is None else span(found.score, found.low, found.high)


def _differences(site: Site, found: Sequence[Subject], ids: Sequence[str]) -> Grid:
    pairs = {
        (one.of[ids[0]].id, one.of[other].id): (one, other)
        for one in found
        for other in ids[1:]
        if ids[0] in one.of and other in one.of
    }
    rows: list[tuple[Any, ...]] = []
    p_values: list[float] = []
    for before, after, was, now, clusters in _samples(site, [*pairs]):
        one, other = pairs[before, after]
        items = PairedItems(tuple(was), tuple(now), tuple(clusters))
        difference = paired_difference(items)
        p_values.append(change_p(items))
        lost, gained = (
            Link(f"{count:,}", href("/items", {"before": before, "after": after, "way": way}))
            for count, way in ((items.lost, "lost"), (items.gained, "gained"))
        )
        moved = span(difference.mean, difference.low, difference.high, signed=True)
        rows.append((one.name, one.split, short(other), items.n, lost, gained, moved))
    corrected = benjamini_hochberg(p_values)
    whole: list[tuple[Any, ...]] = [
        (*row, p, q) for row, p, q in zip(rows, p_values, corrected, strict=True)
    ]
    head = ("capability or guard", "split", "adapter", "items", "lost", "gained")
    note = "they were asked nothing in common"
    title = f"Against {short(ids[0])}"
    return Grid(
        title, (*head, "difference", "p", "corrected"), lines(sorted(whole, key=_order)), note
    )


def _samples(site: Site, pairs: Sequence[tuple[str, str]]) -> list[tuple[Any, ...]]:
    if not pairs:
        return []
    only = {one for pair in pairs for one in pair}
    return site.catalog.query(_PAIRED, [list(pairs)], only=only).rows


def _order(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(row[:3])


def _curves(site: Site, ids: Sequence[str]) -> list[Picture]:
    named = []
    for key in ids:
        runs = [one.id for one in site.catalog.manifest(key).parents if one.role == "run"]
        made = [one for one in runs if _trains(site, one)]
        named.append((short(key), curves_of(site.ws, made[-1] if made else None)))
    return [*drawn_curves(named)]


def _trains(site: Site, run: str) -> bool:
    return site.catalog.manifest(run, RunMeta).meta.stage == "train"
