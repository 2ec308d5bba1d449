"""A report in a browser: found by eye, by keyboard, by ear and on paper, and whole in each."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pipeline.pages.charts import pictures
from pipeline.pages.html import html
from pipeline.pages.items import ItemChanged, NearRow
from pipeline.pages.parts import parts
from tests.support.accounts import account, finding
from tests.support.browsing import (
    CROSSWISE,
    NARROW,
    NARROW_DARK,
    WIDE,
    clipped,
    serious,
    tab_stops,
    too_wide,
)

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

_LONG = 2_000_000
EVIL = (
    '<script>document.title = "taken"</script><img src="http://example.invalid/x" onerror="x()">'
    "[x](javascript:alert(1)) \x1b[31mred\x1b[0m \u202egnorw\u202c &amp; \x00"
)


def changed(said: str) -> list[ItemChanged]:
    near = NearRow("colours", "mend", "data/c.jsonl:3", said, 0.5)
    return [
        ItemChanged("colours", "lost", said, said, said, said, near),
        ItemChanged("moods", "gained", said, "a", "b", "a", None),
    ]


@cache
def evil() -> bytes:
    told = account(base=EVIL, gap=(finding(EVIL, 0.4, "tune", 0.5), finding("b", 0.2, "met")))
    made = html(told, parts(told, pictures(told), changed(EVIL)))
    return made.encode("utf-8", "replace")


def address(folder: Path, page: bytes) -> str:
    file = folder / "report.html"
    file.write_bytes(page)
    return file.as_uri()


@pytest.mark.parametrize("page", CROSSWISE, indirect=True, ids=str)
def test_it_opens_from_a_file_and_nothing_is_wrong_with_it(page: Page, quickstart: str) -> None:
    page.goto(quickstart)
    assert page.locator("h1").inner_text().startswith("Adapter ")
    assert page.get_by_text("Yes: it passed all 6 gates on test").is_visible()
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert serious(page) == []
    assert too_wide(page) == []


@pytest.mark.parametrize("page", [WIDE], indirect=True)
def test_it_is_in_order_for_who_hears_it(page: Page, quickstart: str) -> None:
    page.goto(quickstart)
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(now - before <= 1 for before, now in pairwise(levels))
    for landmark in ("header", "nav[aria-label]", "main", "footer"):
        assert page.locator(f"body > {landmark}").count() == 1, landmark
    names = page.locator("main > section").evaluate_all(
        "all => all.map(one => document.getElementById(one.getAttribute('aria-labelledby'))"
        ".textContent)"
    )
    assert names[0] == "The story"
    tables = page.locator("table").evaluate_all(
        "all => all.map(one => [one.caption?.textContent ?? '',"
        " [...one.querySelectorAll('th')].every(head => head.scope)])"
    )
    assert tables
    assert all(caption and scoped for caption, scoped in tables)


@pytest.mark.parametrize("page", [WIDE], indirect=True)
def test_each_chart_says_what_it_shows(page: Page, quickstart: str) -> None:
    page.goto(quickstart)
    said = {
        figure.locator("figcaption").inner_text(): figure.get_by_role("img").get_attribute(
            "aria-label"
        )
        for figure in page.locator("figure").all()
    }
    assert len(said) == page.locator("figure svg").count() >= 10
    assert "sentiment, base: 0.505" in (said["Scores with 95% intervals; a bar is the goal"] or "")
    assert "goal of sentiment: 0.75" in (said["Scores with 95% intervals; a bar is the goal"] or "")
    assert all(text and any(letter.isdigit() for letter in text) for text in said.values())


@pytest.mark.parametrize("page", [NARROW], indirect=True)
def test_every_link_leads_somewhere(page: Page, quickstart: str) -> None:
    page.goto(quickstart)
    links = page.locator("a")
    assert links.count() >= 11
    for link in links.all():
        target = link.get_attribute("href") or ""
        if target.startswith("#"):
            link.evaluate("one => one.click()")
            assert page.locator(target).count() == 1, target
            assert page.evaluate("location.hash") == target
            assert page.locator(target).evaluate(
                "one => one.getBoundingClientRect().top < innerHeight"
            )
        else:
            assert "noopener" in (link.get_attribute("rel") or ""), target


@pytest.mark.parametrize("page", [NARROW], indirect=True)
def test_the_keyboard_comes_by_in_the_order_of_the_page(page: Page, quickstart: str) -> None:
    page.goto(quickstart)
    stops = tab_stops(page)
    assert stops[0].text == "To the report"
    assert [stop.place for stop in stops] == sorted(stop.place for stop in stops)
    assert [stop.text for stop in stops if not stop.seen] == []
    assert sum(stop.tag == "summary" for stop in stops) == page.locator("summary").count()
    first = page.locator("summary").first
    first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    page.keyboard.press("Space")
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("page", [WIDE], indirect=True)
def test_on_paper_all_is_open_and_nothing_is_cut(page: Page, quickstart: str) -> None:
    page.goto(quickstart)
    page.set_viewport_size({"width": 700, "height": 1000})
    page.emulate_media(media="print", color_scheme="light")
    assert page.locator("details[open]").count() == 0
    hidden = page.locator("details li, details table").evaluate_all(
        "all => all.filter(one => !one.checkVisibility() || one.getBoundingClientRect().height < 9)"
        ".length"
    )
    assert hidden == 0
    assert clipped(page) == []
    assert too_wide(page) == []
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("page", [NARROW_DARK], indirect=True)
def test_what_the_data_say_stays_text(page: Page, tmp_path: Path) -> None:
    page.goto(address(tmp_path, evil()))
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert page.title().startswith("Adapter bbbb")
    assert page.locator("script, img").count() == 0
    assert page.locator("a:not([href^='#'])").count() == 0
    card = page.locator(".cards li").first.inner_text()
    assert '<script>document.title = "taken"</script>' in card
    assert "\\u001b[31mred\\u001b[0m \\u202egnorw\\u202c &amp;" in card
    assert serious(page) == []
    assert too_wide(page) == []


@pytest.mark.parametrize("page", [NARROW], indirect=True)
@pytest.mark.parametrize("said", ["word " * (_LONG // 5), "w" * _LONG], ids=["words", "one word"])
def test_an_answer_of_2_mb_is_a_page_that_opens(page: Page, tmp_path: Path, said: str) -> None:
    told = account()
    made = html(told, parts(told, defaultdict(tuple), changed(f"{said}What is asked?"))).encode()
    assert len(made) < 60_000
    page.goto(address(tmp_path, made))
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    card = page.locator(".cards li").first.inner_text()
    assert "characters are left out" in card
    assert "What is asked?" in card
    assert too_wide(page) == []
