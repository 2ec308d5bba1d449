"""What a browser makes of a page: what it complains of, what it asks for, what does not fit.

`serious` are axe-core's findings, `too_wide` what makes a page scroll sideways, `tab_stops` where
the keyboard comes by; a `Watch` keeps what a page complains of and whom it asks.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, WebError

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_STAYS = frozenset({"file", "data", "blob", "about"})  # schemes that nothing is sent by
_LOUD = frozenset({"error", "warning", "assert"})
_FAILS = frozenset({"serious", "critical"})


def chromium() -> str | None:
    """Return the path of the system's Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def arguments() -> list[str]:
    """Return Chromium's options: no host but this one has an address, so nothing can leave."""
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
    return ["--no-sandbox", *options] if os.geteuid() == 0 else options


@dataclass(frozen=True)
class Look:
    """How a page is looked at."""

    width: int
    scheme: str

    def __str__(self) -> str:
        return f"{self.width}-{self.scheme}"


NARROW, WIDE = Look(400, "light"), Look(1600, "light")
NARROW_DARK, WIDE_DARK = Look(400, "dark"), Look(1600, "dark")
LOOKS = (NARROW, WIDE, NARROW_DARK, WIDE_DARK)
CROSSWISE = (NARROW, WIDE_DARK)
"""Both widths and both schemes in half the time."""


@dataclass
class Watch:
    """What went wrong in a context's pages.

    Attributes:
        origins: `http://127.0.0.1:8000` and the like that may be asked.
        problems: a line each: console errors and warnings, exceptions, requests that left.
    """

    origins: Sequence[str] = ()
    problems: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        """Listen to a context's pages, those that it opens later too."""
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("request", self._request)

    def _console(self, said: ConsoleMessage) -> None:
        if said.type in _LOUD:
            self.problems.append(f"console {said.type}: {said.text}")

    def _error(self, error: WebError) -> None:
        self.problems.append(f"exception: {error.error}")

    def _request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in _STAYS and f"{url.scheme}://{url.netloc}" not in self.origins:
            self.problems.append(f"a request left: {request.method} {request.url}")


def serious(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical: rule, selectors, and why, a line each.

    It runs over the browser's own protocol: a page's policy on scripts stays in force. It passes
    charts over, whose thousand shapes are hidden from who hears the page.
    """
    from axe_playwright_python.sync_playwright import Axe

    found: list[dict[str, Any]] = Axe().run(page, {"exclude": [["svg"]]}).response["violations"]
    return [
        f"{one['id']} ({one['impact']}) at {node['target']}: {node.get('failureSummary', '')}"
        for one in found
        if one["impact"] in _FAILS
        for node in one["nodes"]
    ]


_TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const scrolled = one => {
    for (let at = one.parentElement; at; at = at.parentElement)
      if (getComputedStyle(at).overflowX !== 'visible') return true;
    return false;
  };
  return [...document.body.querySelectorAll('*')]
    .filter(one => one.getBoundingClientRect().right > width + 1 && !scrolled(one))
    .map(one => `${one.tagName.toLowerCase()}.${one.className} ${one.textContent.slice(0, 60)}`);
}"""


def too_wide(page: Page) -> list[str]:
    """Return the elements that make a page scroll sideways; those in a scrolling box don't."""
    found: list[str] = page.evaluate(_TOO_WIDE)
    return found


_CLIPPED = """() => [...document.body.querySelectorAll('*')]
  .filter(one => getComputedStyle(one).overflowX !== 'visible' && one.clientWidth > 0
    && one.scrollWidth > one.clientWidth + 1 && one.tagName !== 'svg')
  .map(one => `${one.tagName.toLowerCase()}.${one.className} ${one.textContent.slice(0, 60)}`)"""


def clipped(page: Page) -> list[str]:
    """Return the elements that don't show all they hold: on paper there is no scrolling."""
    found: list[str] = page.evaluate(_CLIPPED)
    return found


@dataclass(frozen=True)
class TabStop:
    """An element that Tab stops at.

    Attributes:
        tag: `a`, `summary`, ...
        text: what it says, or its label.
        place: its place among all elements of the page, in the order of the source.
        seen: whether it is shown that it has the focus, and where it is on the screen.
    """

    tag: str
    text: str
    place: int
    seen: bool


_STOP = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one), box = one.getBoundingClientRect();
  const outlined = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  const inside = box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0
    && box.left < innerWidth;
  return {
    tag: one.tagName.toLowerCase(),
    text: one.getAttribute('aria-label') || one.textContent.trim().slice(0, 80),
    place: [...document.querySelectorAll('*')].indexOf(one),
    seen: outlined && inside,
  };
}"""


def tab_stops(page: Page, most: int = 200) -> list[TabStop]:
    """Press Tab from the top of a page until it leaves it, and return where it stopped."""
    stops: list[TabStop] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        found = page.evaluate(_STOP)
        if found is None or (stops and found["place"] == stops[0].place):
            return stops
        stops.append(TabStop(**found))
    raise AssertionError(f"more than {most} stops")
