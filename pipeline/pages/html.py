"""A report as one HTML file: nothing in it asks the network, and nothing in it runs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.draw import svg
from pipeline.pages.words import story
from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.pages.account import Account
    from pipeline.pages.charts.draw import Picture
    from pipeline.pages.parts import Part

TEMPLATES = Path(__file__).parent / "templates"
_ID = 12
_WIDE = ("lineage",)  # pictures that are wider than a telephone


@dataclass(frozen=True)
class Badge:
    """A verdict in two words; `kind` is good, bad or open."""

    kind: str
    text: str


def html(told: Account, made: Sequence[Part]) -> str:
    """Return the page.

    No script is allowed in it and no style but its own, whatever the data say.
    """
    from markupsafe import Markup

    style = (TEMPLATES / "style.css").read_text("utf-8")
    sum256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{sum256}'; base-uri 'none'; form-action 'none'"
    page = environment().get_template("report.html.jinja")
    return str(
        page.render(
            title=title(told),
            lead=lead(told),
            verdict=badge(told),
            story=story(told),
            parts=[_part(part) for part in made],
            style=Markup(style),  # noqa: S704 - our own file
            policy=policy,
        )
    )


def environment() -> Any:
    """Return Jinja's environment: every value is escaped, every name must be there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """Return a value as it may stand in a page: marks that would turn its letters are shown."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return inert(value.replace("\r\n", "\n"))


def title(told: Account) -> str:
    """Return what the page is about."""
    what = f"Adapter {told.id[:_ID]}" if told.facts else "Gaps"
    return f"{what} of {told.base}"


def lead(told: Account) -> str:
    """Return the page's first line."""
    if told.facts is None:
        return f"What {told.base} lacks, as it was measured; nothing was trained."
    made = told.facts.created_at[:10]
    aliases = f", called {', '.join(told.facts.aliases)}" if told.facts.aliases else ""
    return f"Made on {made}{aliases}."


def badge(told: Account) -> Badge | None:
    """Return whether it may be used."""
    if told.facts is None:
        return None
    if told.promotion is None:
        return Badge("open", "not promoted")
    return Badge("good", "promoted") if told.promotion[1].promoted else Badge("bad", "refused")


def _part(part: Part) -> dict[str, Any]:
    return {
        "id": part.id,
        "title": part.title,
        "text": part.text,
        "tables": part.tables,
        "pictures": [_picture(one) for one in part.pictures],
    }


def _picture(one: Picture) -> dict[str, Any]:
    from markupsafe import Markup

    drawn = Markup(svg(one))  # noqa: S704 - vl-convert has escaped what the data say
    return {"title": one.title, "says": one.says, "svg": drawn, "wide": one.name in _WIDE}
