"""The local page in a real browser: every page, clicked and filled in, at two widths, also dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsing import NARROW, WIDE, WIDE_DARK, serious, tab_stops, too_wide
from tests.support.paged import paged
from tests.support.shown_store import Shown, make

if TYPE_CHECKING:
    from playwright.sync_api import Page

NARROWLY = pytest.mark.parametrize("page", [NARROW], indirect=True, ids=str)
DARK = pytest.mark.parametrize("page", [WIDE_DARK], indirect=True, ids=str)
ONE = pytest.mark.parametrize("page", [WIDE], indirect=True, ids=str)


@dataclass(frozen=True)
class Served:
    """A workspace that is served."""

    made: Shown
    origin: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = make(Path(tmp_path_factory.mktemp("shown")) / "ws")
    with paged(made.root) as page:
        yield Served(made, page.origin)


@pytest.fixture
def origins(served: Served) -> tuple[str, ...]:
    """Only this server may be asked; see conftest.py."""
    return (served.origin,)


def sound(page: Page, at: str) -> None:
    """Check what every page has to be."""
    page.wait_for_load_state("networkidle")
    assert serious(page) == [], at
    assert too_wide(page) == [], at
    drawn = "Array.from(document.images).filter(one => one.complete && !one.naturalWidth).length"
    assert page.evaluate(drawn) == 0, at


@pytest.fixture(autouse=True)
def patient(page: Page) -> None:
    """Wait longer than Playwright does: a machine may be busy."""
    page.set_default_timeout(240_000)


@NARROWLY
def test_every_kind_of_page_is_sound(page: Page, served: Served) -> None:
    made = served.made
    first, newest = made.adapters
    after, before = made.evals[newest, "colours"], made.evals["", "colours"]
    for path in (
        *("/", "/runs", "/adapters", "/data", "/chat", "/running", "/alias/candidate"),
        *(f"/adapter/{newest}", f"/compare?id={first}&id={newest}", f"/lineage/{newest}"),
        f"/items?of={newest}&subject=colours&way=lost",
        f"/item?after={after}&before={before}&row=3&near=1",
        *(f"/data/{made.versions[1]}", f"/data/diff?a={made.versions[0]}&b={made.versions[1]}"),
        *(f"/selection/{made.selections[0]}", "/row/3", f"/thing/{made.failed}"),
        "/sql?q=select stage, count(*) as n from runs group by 1",
    ):
        page.goto(served.origin + path)
        assert page.locator("h1").count() == 1, path
        sound(page, path)


@DARK
def test_it_is_sound_in_the_dark_too(page: Page, served: Served) -> None:
    for path in ("/", f"/adapter/{served.made.adapters[-1]}", "/sql"):
        page.goto(served.origin + path)
        sound(page, path)


@ONE
def test_a_person_goes_from_the_overview_to_a_row_and_its_line(page: Page, served: Served) -> None:
    page.goto(served.origin)
    page.get_by_role("link", name=served.made.adapters[-1][:12]).first.click()
    page.get_by_role("link", name="Rows it was trained on").click()
    page.get_by_role("link", name="4", exact=True).click()
    assert page.locator("h1").inner_text() == "Row 4"
    assert "data/talk.jsonl:5" in page.locator("main").inner_text()
    assert "<script>alert(1)</script>" in page.locator("pre").first.inner_text()
    page.get_by_role("link", name="talk").first.click()
    assert "version" in page.locator("h1").inner_text()
    page.go_back()
    page.get_by_role("link", name=served.made.push[:12]).click()
    assert page.locator("h1").inner_text().startswith("Push")


@ONE
def test_two_adapters_are_chosen_and_compared(page: Page, served: Served) -> None:
    page.goto(f"{served.origin}/adapters")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="lay them side by side").click()
    assert page.locator("h1").inner_text() == "Side by side"
    assert page.locator("img").count() >= 1
    sound(page, page.url)


@ONE
def test_items_are_filtered_and_one_is_opened(page: Page, served: Served) -> None:
    page.goto(f"{served.origin}/items")
    page.get_by_label("Verdict").select_option("lost")
    page.get_by_label("Capability or guard").select_option("colours")
    page.get_by_label("Text").fill("question 3")
    page.get_by_role("button", name="Show").click()
    assert re.search("1 to [0-9]+ of [0-9]+ items", page.locator("main").inner_text())
    page.locator("tbody a").first.click()
    assert "Answer before" in page.locator("main").inner_text()
    page.get_by_role("link", name="Look among the rows").click()
    assert "likeness" in page.locator("main").inner_text()


@ONE
def test_a_question_is_asked_and_drawn(page: Page, served: Served) -> None:
    page.goto(f"{served.origin}/sql")
    page.get_by_role("link", name="How long did each stage take, on what?").click()
    assert page.locator("tbody tr").count() >= 3
    page.get_by_label("One SELECT").fill("select 1 as a, 'x' as b")
    page.get_by_role("button", name="Ask").click()
    assert page.locator("img").count() == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="As CSV").click()
    assert download.value.suggested_filename == "answer.csv"
    page.get_by_label("One SELECT").fill("drop table x")
    page.get_by_role("button", name="Ask").click()
    assert "only reads" in page.get_by_role("alert").inner_text()


@ONE
def test_a_name_is_moved(page: Page, served: Served) -> None:
    page.goto(f"{served.origin}/alias/candidate")
    page.get_by_label("To", exact=True).fill(served.made.adapters[0])
    page.get_by_label("Why").fill("it was better")
    page.get_by_role("button", name="Move").click()
    assert "Moved" in page.get_by_role("status").inner_text()
    assert "it was better" in page.locator("main").inner_text()


@ONE
def test_the_keyboard_comes_by_everything_in_order(page: Page, served: Served) -> None:
    page.goto(f"{served.origin}/items")
    stops = tab_stops(page)
    assert [one.text for one in stops][:2] == ["To the content", "Overview"]
    assert [one.place for one in stops] == sorted(one.place for one in stops)
    assert [one.text for one in stops if not one.seen] == []
