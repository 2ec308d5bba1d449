"""Charts as SVG and PNG: Altair describes them, vl-convert draws them; no browser, no network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Callable

    import altair as alt

WIDTH = 320
"""Pixels of a chart without its labels: it fits a telephone, and two or three a screen."""

INK, QUIET, GRID = "#111111", "#707070", "#d8d8d8"
BEFORE, PROMPT, AFTER, LOST, GAINED = "#8c8c8c", "#b0720a", "#2266bb", "#b23a3a", "#2e7d4f"
SERIES = (AFTER, PROMPT, GAINED, LOST, "#7a4fa3", "#0f7f86", BEFORE)
"""Colours that are told apart in grey, too, and by those who see no red or green."""

_PNG_SCALE = 2
_UNDRAWABLE = re.compile("[\ud800-\udfff\ufffe\uffff]")
_SIZE = 11
_STYLE = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    # Names are measured here with one font and shown by a browser with its own, at most so wider.
    "padding": {"left": 20, "right": 12, "top": 5, "bottom": 5},
    "axis": {
        "labelColor": INK,
        "labelFontSize": _SIZE,
        "labelLimit": 120,
        "titleColor": QUIET,
        "titleFontSize": _SIZE,
        "titleFontWeight": "normal",
        "gridColor": GRID,
        "domainColor": QUIET,
        "tickColor": QUIET,
    },
    "legend": {
        "labelColor": INK,
        "labelFontSize": _SIZE,
        "titleColor": QUIET,
        "orient": "bottom",
        "direction": "horizontal",
        "columns": 3,
        "symbolOpacity": 1,
    },
    "range": {"category": list(SERIES)},
    "aria": False,
}


@dataclass(frozen=True)
class Picture:
    """A chart.

    Attributes:
        name: of its file: `gap`.
        title: for people.
        says: what it shows, for who doesn't see it.
        chart: makes what Altair describes: a page that doesn't show it needn't wait for it.
    """

    name: str
    title: str
    says: str
    chart: Callable[[], alt.TopLevelMixin]


def svg(picture: Picture) -> str:
    """Return a picture as an SVG element to stand in a page.

    Its colours are those of this module: a page's style gives each its shade, light or dark.
    """
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(_spec(picture))
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    width = size.group(1) if size else str(WIDTH)
    rest = drawn.partition(">")[2]
    box = size.group(0) if size else ""
    return f'<svg {box} width="{width}" focusable="false" aria-hidden="true">{rest}'


def svg_file(picture: Picture, style: str) -> str:
    """Return a picture as an SVG file that has its style, for a page to name as an image."""
    inside = svg(picture).partition(">")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    kept = f"<style><![CDATA[{style}]]></style>"
    return f"{inside[0].replace('<svg', f'<svg {names}', 1)}>{kept}{inside[2]}"


def png(picture: Picture) -> bytes:
    """Return a picture as a PNG on white, twice as large."""
    import vl_convert

    spec = _spec(picture)
    spec["config"]["background"] = "white"
    spec["title"] = {"text": picture.title, "anchor": "start", "fontSize": _SIZE + 2, "color": INK}
    return bytes(vl_convert.vegalite_to_png(spec, scale=_PNG_SCALE))


def _spec(picture: Picture) -> dict[str, Any]:
    spec: dict[str, Any] = picture.chart().to_dict()
    return {**_drawable(spec), "config": {**_STYLE}}


def _drawable(value: Any) -> Any:
    """Return a specification without characters that XML has no place for: they end the process."""
    if isinstance(value, str):
        return _UNDRAWABLE.sub("\ufffd", inert(value))
    if isinstance(value, dict):
        return {_drawable(key): _drawable(one) for key, one in value.items()}
    return [_drawable(one) for one in value] if isinstance(value, list | tuple) else value
