"""Which address is which view, and what becomes of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route

from pipeline.site import static
from pipeline.site.answering import asking
from pipeline.site.forms import FOREIGN, form_of, html, is_ours, said, text_of
from pipeline.site.guard import Guard
from pipeline.site.render import status_of
from pipeline.site.site import Asked
from pipeline.site.views import (
    adapter,
    aliases,
    chat,
    compare,
    data,
    items,
    lineage,
    overview,
    row,
    running,
    runs,
    selection,
    sql,
    thing,
)
from registry.errors import GapmendError, StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from pipeline.site.site import Site

    View = Callable[[Site, Asked], Response | bytes]

_VIEWS: dict[str, View] = {
    "/": overview.overview,
    "/runs": runs.runs,
    "/adapters": runs.adapters,
    "/adapter/{id}": adapter.adapter,
    "/adapter/{id}/chart/{name}.svg": adapter.chart,
    "/compare": compare.compare,
    "/compare/{name}.svg": compare.chart,
    "/items": items.items,
    "/item": items.item,
    "/data": data.data,
    "/data/diff": data.diff,
    "/data/{id}": data.version,
    "/selection/{id}": selection.selection,
    "/row/{uid}": row.row,
    "/lineage/{id}": lineage.lineage_of,
    "/lineage/{id}/lineage.svg": lineage.chart,
    "/thing/{id}": thing.thing,
    "/thing/{id}/chart/{name}.svg": thing.chart,
    "/sql": sql.sql,
    "/sql.csv": sql.as_csv,
    "/sql.svg": sql.chart,
    "/running": running.running,
    "/running/now": running.fragment,
    "/running/{folder}/{name}.svg": running.chart,
    "/alias/{name}": aliases.alias,
    "/chat": chat.chat,
    "/static/{name}": static.file,
}
_CHANGING: dict[str, View] = {
    "/alias/{name}": aliases.move,
    "/chat/keep": chat.keep,
    "/chat/new": chat.new,
    "/chat/stop": chat.stop,
}


def app(site: Site) -> ASGIApp:
    """Return the page of a workspace, behind its guard."""
    routes = [Route("/chat", asking(site), methods=["POST"])]
    routes += [Route(path, _at(site, view), methods=["POST"]) for path, view in _CHANGING.items()]
    routes += [Route(path, _at(site, view), methods=["GET"]) for path, view in _VIEWS.items()]
    routes.append(Route("/{path:path}", _at(site, _nothing)))
    return Guard(Starlette(routes=routes), site.access)


def _at(site: Site, view: View) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        form = await form_of(request) if request.method == "POST" else None
        query = parse_qs(request.url.query, keep_blank_values=True, errors="replace")
        path = {name: text_of(value) for name, value in request.path_params.items()}
        query = {name: [*map(text_of, values)] for name, values in query.items()}
        asked = Asked(path, query, form)
        return await run_in_threadpool(_answered, site, view, asked)

    return endpoint


def _answered(site: Site, view: View, asked: Asked) -> Response:
    """Call a view; an error is a page that says it, or a line for a script."""
    try:
        if asked.form is not None and not is_ours(site, asked.form):
            return said(site, FOREIGN, 403, asked.form)
        answer = view(site, asked)
    except GapmendError as error:
        return said(site, str(error), status_of(error), asked.form)
    except Exception as error:  # noqa: BLE001 - a page says it, and the terminal's log has it whole
        return said(site, site.fault(error), 500, asked.form)
    return answer if isinstance(answer, Response) else html(answer)


def _nothing(site: Site, asked: Asked) -> bytes:
    del site
    raise StoreRequestError(f"no page is at /{asked.path['path'][:80]}", fix="go to the overview")
