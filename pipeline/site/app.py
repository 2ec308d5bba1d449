"""Which address is which view, and what becomes of errors."""

from __future__ import annotations

import secrets
import traceback
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route

from pipeline.site import static
from pipeline.site.guard import Guard
from pipeline.site.render import page, status_of
from pipeline.site.site import Asked
from pipeline.site.views import (
    adapter,
    aliases,
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
    "/static/{name}": static.file,
}
_CHANGING: dict[str, View] = {"/alias/{name}": aliases.move}


def app(site: Site) -> ASGIApp:
    """Return the page of a workspace, behind its guard."""
    routes = [Route(path, _at(site, view), methods=["POST"]) for path, view in _CHANGING.items()]
    routes += [Route(path, _at(site, view), methods=["GET"]) for path, view in _VIEWS.items()]
    routes.append(Route("/{path:path}", _at(site, _nothing)))
    return Guard(Starlette(routes=routes), site.access)


def _at(site: Site, view: View) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        form = await _form(request) if request.method == "POST" else None
        query = parse_qs(request.url.query, keep_blank_values=True, errors="replace")
        path = {name: _text(value) for name, value in request.path_params.items()}
        query = {name: [*map(_text, values)] for name, values in query.items()}
        asked = Asked(path, query, form)
        return await run_in_threadpool(_answered, site, view, asked)

    return endpoint


async def _form(request: Request) -> dict[str, str]:
    """Return a form's fields, the last of each name; the guard has bounded their size."""
    body = (await request.body()).decode("utf-8", "replace")
    fields = parse_qs(body, keep_blank_values=True)
    return {name: _text(values[-1]) for name, values in fields.items()}


def _text(given: str) -> str:
    """Return a text without NUL, at which a statement would end."""
    return given.replace("\0", "\ufffd")


def _answered(site: Site, view: View, asked: Asked) -> Response:
    """Call a view; an error is a page that says it."""
    try:
        if asked.form is not None and not secrets.compare_digest(
            asked.form.get("csrf", "").encode(), site.access.csrf.encode()
        ):
            return _said(site, "This form is of another start of gapmend ui: open it again.", 403)
        answer = view(site, asked)
    except GapmendError as error:
        return _said(site, str(error), status_of(error))
    except Exception as error:  # noqa: BLE001 - a page says it, and the terminal's log has it whole
        return _said(site, _fault(site, error), 500)
    return answer if isinstance(answer, Response) else _html(answer)


def _said(site: Site, line: str, status: int) -> Response:
    return _html(page(site, "error", "This can't be shown", line=line), status)


def _html(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="text/html")


def _nothing(site: Site, asked: Asked) -> bytes:
    del site
    raise StoreRequestError(f"no page is at /{asked.path['path'][:80]}", fix="go to the overview")


def _fault(site: Site, error: Exception) -> str:
    line = f"a fault of ours: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    log = site.ws.state / "fault.log"
    try:
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:  # a full or read-only disk
        return line
    return f"{line} (traceback in {log}; please report it)"
