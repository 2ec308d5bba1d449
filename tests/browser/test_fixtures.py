"""The fixtures see what they are there to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.browsing import NARROW, WIDE, Watch, serious, tab_stops, too_wide

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.parametrize("page", [NARROW], indirect=True)
_BAD = """<!doctype html><html lang="en"><head><title>bad</title></head><body>
<script>console.warn("loud"); setTimeout(() => { throw new Error("thrown") })</script>
<img src="http://example.invalid/a.png" alt=""><main><h1>A</h1>
<p style="width: 900px; color: #ccc">pale and wide</p><a href="#x" style="outline: none">x</a>
<button>B</button></main></body></html>"""


def test_what_is_wrong_with_a_page_is_seen(page: Page, browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text(_BAD)
    context = browser.new_context(viewport={"width": NARROW.width, "height": 600})
    seen = Watch()
    seen.over(context)
    bad = context.new_page()
    bad.goto(file.as_uri())
    bad.wait_for_load_state("networkidle")
    said = "\n".join(seen.problems)
    assert "console warning: loud" in said
    assert "thrown" in said
    assert "a request left: GET http://example.invalid/a.png" in said
    assert any("color-contrast (serious) at ['p']" in one for one in serious(bad))
    assert any("pale and wide" in one for one in too_wide(bad))
    assert [(one.tag, one.seen) for one in tab_stops(bad)] == [("a", False), ("button", True)]
    context.close()
    page.goto("about:blank")


def test_a_sound_page_passes(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "good.html"
    file.write_text(
        '<!doctype html><html lang="en"><head><title>good</title></head><body><main><h1>A</h1>'
        '<div tabindex="0" role="region" aria-label="B" style="overflow: auto">'
        '<p style="width: 900px">wide, in a box</p></div></main></body></html>'
    )
    page.goto(file.as_uri())
    assert (serious(page), too_wide(page)) == ([], [])
    assert page.viewport_size
    assert page.viewport_size["width"] < WIDE.width
