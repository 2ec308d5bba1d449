"""The files that pages name: styles, an icon, two scripts. Only these; no path is put together."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response

from pipeline.pages.html import TEMPLATES
from registry.errors import StoreRequestError

if TYPE_CHECKING:
    from pipeline.site.site import Asked, Site

_OURS = Path(__file__).parent / "static"
_FILES = {
    "style.css": (TEMPLATES / "style.css", "text/css"),
    "site.css": (_OURS / "site.css", "text/css"),
    "running.js": (_OURS / "running.js", "text/javascript"),
    "chat.js": (_OURS / "chat.js", "text/javascript"),
    "icon.svg": (_OURS / "icon.svg", "image/svg+xml"),
}


def file(site: Site, asked: Asked) -> Response:
    """Answer with a file of the package."""
    del site
    name = asked.path["name"]
    if name not in _FILES:
        raise StoreRequestError(f"no file is called '{name[:80]}'")
    path, kind = _FILES[name]
    return Response(_read(path), media_type=kind)


@cache
def _read(path: Path) -> bytes:
    return path.read_bytes()
