"""Anything that the workspace keeps: what its record says, what it was made from and into."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipeline.pages.account import curves_of
from pipeline.pages.charts.training import drawn_curves
from pipeline.site.charts import drawn, shown
from pipeline.site.render import Grid, Link, cut, href, lines, page, short
from registry.catalog.sql import fill
from registry.lineage.graph import find
from registry.store.kinds import RunMeta

if TYPE_CHECKING:
    from starlette.responses import Response

    from pipeline.pages.charts import Picture
    from pipeline.site.site import Asked, Site
    from registry.store.manifest import Manifest, Meta

_MOST = 200  # objects made from it that are listed
_OWN = {"adapter": "/adapter/{}", "gap": "/adapter/{}", "dataset_version": "/data/{}",
        "selection": "/selection/{}"}  # fmt: skip
_AROUND = """
SELECT edges.role, nodes.kind, nodes.label, nodes.id
FROM catalog.edges AS edges JOIN catalog.nodes AS nodes ON nodes.id = edges.{far}
WHERE edges.{near} = ? ORDER BY nodes.kind, edges.role, nodes.created_at LIMIT ?
"""


def thing(site: Site, asked: Asked) -> bytes:
    """Show an object by what an id, the beginning of one, an alias or a commit names."""
    found = _manifest(site, asked.path["id"])
    kind = found.kind.replace("_", " ")
    meta = found.meta.as_json()
    failed = ""
    if isinstance(found.meta, RunMeta) and not found.meta.done:
        failed = f"This run failed: {found.meta.result.get('error', 'it is not known why')}"
    with site.catalog.reading() as connection:
        above, below = (
            connection.execute(
                fill(_AROUND.format(near=near, far=far), [found.id, _MOST])
            ).fetchall()
            for near, far in (("child", "parent"), ("parent", "child"))
        )
    return page(
        site,
        "thing",
        f"{kind[:1].upper()}{kind[1:]} {short(found.id)}",
        here="/runs" if found.kind == "run" else "",
        failed=failed,
        facts=_facts(found),
        pictures=shown(_curves(site, found), f"/thing/{found.id}/chart"),
        tables=[
            Grid("Made from", ("role", "kind", "what", "id"), _around(above), "nothing"),
            Grid("Made into", ("role", "kind", "what", "id"), _around(below), "nothing"),
            _record("What its record says", meta),
            _record("What decides its id", found.identity),
            Grid("Files", ("name", "bytes", "SHA-256"), lines(
                (name, one.bytes, one.sha256) for name, one in found.files.items()
            ), "none", folded=True),
        ],
    )  # fmt: skip


def chart(site: Site, asked: Asked) -> Response:
    """Draw a curve of a run."""
    found = _manifest(site, asked.path["id"])
    return drawn(site, found.id, _curves(site, found), asked.path["name"])


def _manifest(site: Site, name: str) -> Manifest[Meta]:
    with site.catalog.reading() as connection:
        key = find(connection, name)
    return site.catalog.manifest(key)


def _facts(found: Manifest[Meta]) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("Id", found.id),
        ("Made", found.meta.created_at[:19].replace("T", " ")),
        ("Lineage", Link("what it was made from", href(f"/lineage/{found.id}"))),
        ("Use", Link("what came of it", href(f"/lineage/{found.id}", {"down": 1}))),
    ]
    if found.kind in _OWN:
        facts.insert(0, ("More", Link("its own page", href(_OWN[found.kind].format(found.id)))))
    if isinstance(found.meta, RunMeta):
        facts.insert(1, ("Stage", f"{found.meta.stage}, {found.meta.status}"))
    return facts


def _around(found: list[tuple[str, str, str, str]]) -> Any:
    return lines(
        (role, kind.replace("_", " "), label, Link(short(key), href(f"/thing/{key}")))
        for role, kind, label, key in found
    )


def _record(title: str, values: Any) -> Grid:
    items = values.items() if isinstance(values, dict) else [("", values)]
    rows = [(str(key), cut(_plain(value), 4000)) for key, value in items]
    return Grid(title, ("key", "value"), lines(rows), "nothing more", folded=True)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _curves(site: Site, found: Manifest[Meta]) -> list[Picture]:
    if not isinstance(found.meta, RunMeta) or found.meta.stage != "train":
        return []
    return [*drawn_curves([("", curves_of(site.ws, found.id))])]
