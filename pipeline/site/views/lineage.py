"""Lineage: from anything up to the files it was made from, or down to what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.pages.charts.graph import lineage_picture
from pipeline.site.charts import drawn, shown
from pipeline.site.render import PAGE, Grid, Link, href, lines, page, short
from registry.lineage.graph import lineage
from registry.lineage.rows import sources_of

if TYPE_CHECKING:
    from starlette.responses import Response

    from pipeline.site.site import Asked, Site
    from registry.lineage.graph import Lineage

_MOST = 500  # objects that are listed
# What a person follows first; what was measured on the way comes behind.
_ORDER = (
    *("push", "export", "signature", "model", "merge", "promotion", "alias", "adapter", "run"),
    *("selection", "gap", "dataset_version", "rows", "forgetting", "eval"),
)


def lineage_of(site: Site, asked: Asked) -> bytes:
    """Show the lineage of what an id, an alias or a commit on the Hub names."""
    down = asked.one("down") == "1"
    found = _lineage(site, asked.path["id"], down=down)
    root = next(one for one in found.nodes if one.id == found.root)
    picture = None if down else lineage_picture(found)
    return page(
        site,
        "lineage",
        f"Lineage of {root.kind.replace('_', ' ')} {short(found.root)}",
        here="",
        down=down,
        up=href(f"/lineage/{found.root}"),
        below=href(f"/lineage/{found.root}", {"down": 1}),
        pictures=[] if picture is None else shown([picture], f"/lineage/{found.root}"),
        table=_nodes(found, down=down),
        sources=None if down else _sources(site, found),
    )


def chart(site: Site, asked: Asked) -> Response:
    """Draw what a thing was made from."""
    found = _lineage(site, asked.path["id"], down=False)
    picture = lineage_picture(found)
    return drawn(site, ("drawn", found.root), [picture] if picture else [], "lineage")


def _lineage(site: Site, thing: str, *, down: bool) -> Lineage:
    return site.once(("lineage", thing, down), lambda: lineage(site.catalog, thing, down=down))


def _nodes(found: Lineage, *, down: bool) -> Grid:
    """Return the objects; beside each what leads to it, one step nearer to where we began."""
    nearer: dict[str, list[tuple[str, str]]] = {}
    for edge in found.edges:
        far, near = (edge.child, edge.parent) if down else (edge.parent, edge.child)
        nearer.setdefault(far, []).append((near, edge.role))
    nodes = sorted(
        (one for one in found.nodes),
        key=lambda one: (
            one.id != found.root,
            _ORDER.index(one.kind) if one.kind in _ORDER else 99,
        ),
    )
    rows = []
    for one in nodes[:_MOST]:
        near, role = nearer.get(one.id, [("", "")])[0]
        link = Link(short(near), href(f"/thing/{near}")) if near else ""
        to = Link(short(one.id), href(f"/thing/{one.id}"))
        rows.append((one.kind.replace("_", " "), one.label, to, link, role))
    more = f", the first {_MOST:,}" if len(nodes) > _MOST else ""
    title = f"{len(nodes):,} objects{more}"
    head = ("kind", "what", "id", "came of" if down else "for", "role")
    return Grid(title, head, lines(rows))


def _sources(site: Site, found: Lineage) -> Grid:
    rows = [
        (one.file, Link(f"{one.dataset} {short(one.version_id)}",
                        href(f"/data/{one.dataset}@{one.version_id}")), one.rows, one.taught)
        for one in site.once(("sources", found.root), lambda: sources_of(site.catalog, found.root))
    ]  # fmt: skip
    head = ("file", "version", "rows of it", "that it was trained on")
    return Grid("Files", head, lines(rows[: PAGE * 4]), "it goes back to no file")
