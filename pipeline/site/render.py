"""Pages as HTML: every value is text, whatever it says; every address is one of ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from pipeline.pages.html import TEMPLATES as SHARED
from pipeline.workspace.inert import inert
from registry.errors import (
    AliasMovedError,
    GateRefusedError,
    MachineError,
    StoreRequestError,
    UserError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.site.site import Site
    from registry.errors import GapmendError

TEMPLATES = Path(__file__).parent / "templates"
ID = 12
"""Digits of an id that are shown."""
PAGE = 50
"""Lines of a table that a page has."""
_LONG = 600  # characters of a cell; the whole text is on the page of its own


@dataclass(frozen=True)
class Link:
    """A text that leads to another page of ours; see `href`."""

    text: str
    href: str


@dataclass(frozen=True)
class Tick:
    """A box to choose a line by, in a form: `label` is for who doesn't see the line."""

    name: str
    value: str
    label: str
    on: bool = False


Cell = str | Link | Tick


@dataclass(frozen=True)
class Grid:
    """A table; the first cell of a line names it. `note` stands where there are no lines."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = "none yet"
    folded: bool = False
    cards: bool = False


@dataclass(frozen=True)
class Pages:
    """Where in a long table a page is: lines from `first` (0) of `total`, and the way on."""

    first: int
    shown: int
    total: int
    before: str | None
    after: str | None

    @classmethod
    def of(
        cls,
        path: str,
        query: Mapping[str, Any],
        number: int,
        shown: int,
        total: int,
        *,
        lines: int = PAGE,
    ) -> Pages:
        """Return the place of page `number` (0 is the first), of so many lines, of a table."""

        def at(page: int) -> str:
            return href(path, {**query, "page": page})

        more = (number + 1) * lines < total
        first = number * lines
        return cls(
            first,
            shown,
            total,
            at(number - 1) if number else None,
            at(number + 1) if more else None,
        )


@dataclass(frozen=True)
class Shown:
    """A chart by its address: an image, drawn when a browser asks for it."""

    title: str
    says: str
    src: str
    wide: bool = False


def href(path: str, query: Mapping[str, Any] | None = None) -> str:
    """Return an address of ours; values are written so that they stay values."""
    kept = {key: value for key, value in (query or {}).items() if value not in (None, "", [], ())}
    asked = f"?{urlencode(kept, doseq=True)}" if kept else ""
    return quote(path, safe="/") + asked


class Excerpt(str):
    """A text as far as a table shows it: it isn't cut again."""

    __slots__ = ()


def cut(text: str, most: int = _LONG) -> Excerpt:
    """Return a text as far as a table shows it."""
    return Excerpt(text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters)")


def short(key: str | None) -> str:
    """Return the beginning of an id."""
    return "" if key is None else key[:ID]


def page(site: Site, view: str, title: str, /, **values: Any) -> bytes:
    """Return a page; `here` among the values says which entry of the menu it is under."""
    common = {"title": title, "workspace": site.ws.root.name, "csrf": site.access.csrf}
    return template(view, **{"here": "", **common, **values})


def template(name: str, /, **values: Any) -> bytes:
    """Return a part of a page."""
    made = _environment().get_template(f"{name}.html.jinja")
    return str(made.render(values)).encode("utf-8", "replace")


def load() -> None:
    """Make the templates, which the first page would wait for."""
    for name in _environment().list_templates(extensions=["jinja"]):
        _environment().get_template(name)


def status_of(error: GapmendError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, AliasMovedError | GateRefusedError):
        return 409
    if isinstance(error, MachineError):
        return 503
    if isinstance(error, StoreRequestError):
        return 503 if "has held the catalog" in error.what else 404
    return 400 if isinstance(error, UserError) else 500


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([TEMPLATES, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["cut"] = cut
    made.tests["link"] = lambda cell: isinstance(cell, Link)
    made.tests["tick"] = lambda cell: isinstance(cell, Tick)
    made.globals["href"] = href
    return made


def _shown(value: Any) -> Any:
    """Return a value as it may stand on a page: controls and marks of direction are shown."""
    from markupsafe import Markup

    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def lines(rows: Iterable[Sequence[Any]]) -> tuple[tuple[Cell, ...], ...]:
    """Return values as cells."""
    return tuple(tuple(cell(value) for value in row) for row in rows)


def cell(value: Any) -> Cell:
    """Return a value as a cell: numbers as people write them, texts as far as a table shows."""
    if isinstance(value, Link | Tick | Excerpt):
        return value
    if isinstance(value, list | tuple):
        return cut(", ".join(str(cell(one)) for one in value))
    return cut(_text(value))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
