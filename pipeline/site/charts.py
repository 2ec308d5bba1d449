"""Charts as images of their own: a page needn't wait for them, and each is drawn once."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from starlette.responses import Response

from pipeline.pages.charts import svg_file
from pipeline.pages.html import TEMPLATES
from pipeline.site.render import Shown, href
from registry.errors import StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from pipeline.pages.charts import Picture
    from pipeline.site.site import Site


def shown(
    pictures: Iterable[Picture], folder: str, query: Mapping[str, Any] | None = None
) -> list[Shown]:
    """Return pictures by their addresses: each is `folder/NAME.svg`."""
    return [
        Shown(one.title, one.says, href(f"{folder}/{one.name}.svg", query), one.name == "lineage")
        for one in pictures
    ]


def drawn(site: Site, key: object, pictures: Iterable[Picture], name: str) -> Response:
    """Answer with the picture of that name.

    Args:
        site: remembers it under `key` until something is committed.
        key: what the pictures are of.
        pictures: those that there are.
        name: which is wanted.

    Raises:
        UserError: there is none of that name.
    """
    found = next((one for one in pictures if one.name == name), None)
    if found is None:
        raise StoreRequestError(f"there is no chart '{name[:80]}'")
    style, policy = _style()
    made = site.once(("svg", key, name), lambda: svg_file(found, style))
    headers = {"content-security-policy": policy}
    content = made.encode("utf-8", "replace")
    return Response(content, media_type="image/svg+xml", headers=headers)


@cache
def _style() -> tuple[str, str]:
    """Return the style of charts, and the policy that lets it and nothing else in."""
    style = (TEMPLATES / "style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return style, f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
