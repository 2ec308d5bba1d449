"""A name: where it points, where it pointed, and moving it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from pipeline.site.render import Grid, Link, href, lines, page, short
from pipeline.workspace.alias import NO_TARGET, tag
from registry.catalog.lists import adapters, alias_history

if TYPE_CHECKING:
    from starlette.responses import Response

    from pipeline.site.site import Asked, Site


def alias(site: Site, asked: Asked) -> bytes:
    """Show a name and its history, with a form that moves it from where it is now."""
    name = asked.path["name"]
    moves = alias_history(site.catalog, name)
    now = moves[-1].target if moves else ""
    rows = [
        (one.seq, Link(short(one.target), href(f"/thing/{one.target}")), short(one.previous),
         one.reason, one.moved_at[:19].replace("T", " "))
        for one in reversed(moves)
    ]  # fmt: skip
    head = ("move", "to", "from", "why", "when")
    there = adapters(site.catalog, limit=50).rows
    shown = f"{name} points at {short(now)}" if now else f"{name} points at nothing yet"
    return page(
        site,
        "alias",
        f"The name {name}",
        here="/adapters",
        action=href(f"/alias/{name}"),
        now=now or NO_TARGET,
        to=asked.one("to"),
        targets=[(one["adapter_id"], f"{one['base']} {one['method'] or ''}") for one in there],
        history=Grid(shown, head, lines(rows)),
        moved=f"Moved: {shown}." if asked.one("moved") else "",
    )


def move(site: Site, asked: Asked) -> Response:
    """Move a name, if it still points at what the page had shown.

    Raises:
        GateRefusedError: `champion`, to what promote has not let through.
        UserError: no such adapter, or the name can't be an alias.
        StoreError: somebody has moved it meanwhile.
    """
    name, form = asked.path["name"], asked.form or {}
    expect = form.get("expect") or NO_TARGET
    tag(site.ws, form.get("target", ""), name, expect=expect, reason=form.get("reason", ""))
    return RedirectResponse(href(f"/alias/{name}", {"moved": 1}), 303)
