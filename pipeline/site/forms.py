"""Forms that browsers send: their fields, and whether they are ours.

A script of ours sends the same forms with a field `plain`: it is answered with a line of text, or
with JSON, where a browser alone is answered with a page.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, Response

from pipeline.site.render import page
from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from pipeline.site.site import Site

FOREIGN = "This form is of another start of gapmend ui: open it again."


async def form_of(request: Request) -> dict[str, str]:
    """Return a form's fields, the last of each name; the guard has bounded their size."""
    body = (await request.body()).decode("utf-8", "replace")
    fields = parse_qs(body, keep_blank_values=True)
    return {name: text_of(values[-1]) for name, values in fields.items()}


def text_of(given: str) -> str:
    """Return a text without NUL, at which a statement would end."""
    return given.replace("\0", "\ufffd")


def is_ours(site: Site, form: Mapping[str, str]) -> bool:
    """Whether a form has the token of our pages."""
    return secrets.compare_digest(form.get("csrf", "").encode(), site.access.csrf.encode())


def said(site: Site, line: str, status: int, form: Mapping[str, str] | None = None) -> Response:
    """Answer with a line: as a page, or as text to a script that sent a form."""
    if form is not None and "plain" in form:
        return PlainTextResponse(inert(line), status)
    return html(page(site, "error", "This can't be shown", line=line), status)


def html(content: bytes, status: int = 200) -> Response:
    """Answer with a page."""
    return Response(content, status, media_type="text/html")


def json_of(value: dict[str, Any]) -> bytes:
    """Return an object as one line of JSON, without its end."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
