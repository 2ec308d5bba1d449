"""Lists: runs of stages, adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.pages.account import STAGES
from pipeline.site.render import PAGE, Grid, Link, Pages, Tick, href, lines, page, short
from pipeline.workspace.durations import in_time
from registry.catalog.lists import adapters as listed_adapters
from registry.catalog.sql import fill

if TYPE_CHECKING:
    from pipeline.site.site import Asked, Site

# The newest first; only those that are shown have more of their manifests read than is asked for.
_RUNS = """
SELECT id, created_at, manifest->>'$.meta.stage', manifest->>'$.meta.inputs.name',
       manifest->>'$.meta.status', (manifest->>'$.meta.seconds')::DOUBLE,
       manifest->>'$.meta.result.error'
FROM (SELECT id, created_at, manifest FROM catalog.objects WHERE {chosen}
      ORDER BY created_at DESC, id DESC LIMIT {limit} OFFSET {offset})
ORDER BY created_at DESC, id DESC
"""
_COUNT = "SELECT count(*) FROM catalog.objects WHERE {chosen}"
_STATUSES = ("", "done", "failed")


def runs(site: Site, asked: Asked) -> bytes:
    """List the runs of stages, of one stage or outcome or of all."""
    stage, status = asked.choice("stage", ("", *STAGES)), asked.choice("status", _STATUSES)
    number = asked.number("page", 0)
    table, total = run_grid(site, number * PAGE, PAGE, stage=stage, status=status)
    query = {"stage": stage, "status": status}
    return page(
        site,
        "runs",
        "Runs",
        here="/runs",
        table=table,
        place=Pages.of("/runs", query, number, len(table.rows), total),
        stages=[(one, one or "all") for one in ("", *STAGES)],
        statuses=[(one, one or "all") for one in _STATUSES],
        **query,
    )


def adapters(site: Site, asked: Asked) -> bytes:
    """List the adapters, to choose some of."""
    number = asked.number("page", 0)
    table, total = adapter_grid(site, number * PAGE, PAGE, choose=True)
    place = Pages.of("/adapters", {}, number, len(table.rows), total)
    return page(site, "adapters", "Adapters", here="/adapters", table=table, place=place)


def run_grid(
    site: Site, offset: int, limit: int, *, stage: str = "", status: str = ""
) -> tuple[Grid, int]:
    """Return runs, the newest first, and how many there are."""
    chosen = "kind = 'run'"
    for key, value in (("stage", stage), ("status", status)):
        if value:
            chosen += fill(f" AND (manifest->>'$.meta.{key}') = ?", [value])
    with site.catalog.reading() as connection:
        sql = _RUNS.format(chosen=chosen, limit=limit, offset=offset)
        found = connection.execute(sql).fetchall()
        total = connection.execute(_COUNT.format(chosen=chosen)).fetchone()
    rows = [
        (Link(short(key), href(f"/thing/{key}")), stage, about, status, error, in_time(took), made)
        for key, made, stage, about, status, took, error in found
    ]
    head = ("run", "stage", "of", "status", "why it failed", "time", "ended")
    note = "nothing has been run yet: gapmend run"
    return Grid("Runs, the newest first", head, lines(rows), note), int(total[0]) if total else 0


def adapter_grid(site: Site, offset: int, limit: int, *, choose: bool = False) -> tuple[Grid, int]:
    """Return adapters, the newest first, and how many there are; with boxes to choose them by."""
    found = listed_adapters(site.catalog, limit=limit, offset=offset)
    rows = [_adapter(one, choose=choose) for one in found.rows]
    head = ("adapter", "called", "base", "method", "rank", "round", "rows", "last loss", "made")
    title = "Adapters, the newest first"
    note = "nothing was trained yet: gapmend train"
    return Grid(title, ("choose", *head) if choose else head, lines(rows), note), found.total


def _adapter(one: dict[str, Any], *, choose: bool) -> tuple[Any, ...]:
    key = one["adapter_id"]
    shown = [one[name] for name in ("base", "method", "rank", "round", "rows", "loss")]
    link = Link(short(key), href(f"/adapter/{key}"))
    tick = (Tick("id", key, f"choose {short(key)}"),) if choose else ()
    made = one["created_at"][:16].replace("T", " ")
    return (*tick, link, ", ".join(one["aliases"]), *shown, made)
