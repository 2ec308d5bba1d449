"""The chat in a real browser: asked, answered by two, kept, stopped, by mouse and by keys."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.browsing import CROSSWISE, NARROW_DARK, WIDE, Watch, serious, tab_stops, too_wide
from tests.support.paged import Paged, paged
from tests.support.talked import make_talked

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from pipeline.site.talks.open_talk import OpenTalk

BOTH = pytest.mark.parametrize("page", CROSSWISE, indirect=True, ids=str)
NARROWLY_DARK = pytest.mark.parametrize("page", [NARROW_DARK], indirect=True, ids=str)
ONE = pytest.mark.parametrize("page", [WIDE], indirect=True, ids=str)
GREW = """() => {
  const seen = window.seen = new Set();
  const look = () => seen.add(document.querySelector('.answer')?.textContent.length);
  const talk = document.getElementById('talk');
  new MutationObserver(look).observe(talk, {subtree: true, childList: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paged]:
    with paged(make_talked(tmp_path_factory.mktemp("talked") / "ws")) as made:
        yield made


@pytest.fixture
def origins(served: Paged) -> tuple[str, ...]:
    """Only this server may be asked; see conftest.py."""
    return (served.origin,)


@pytest.fixture(autouse=True)
def patient(page: Page) -> None:
    """Wait longer than Playwright does: a machine may be busy."""
    page.set_default_timeout(240_000)


def ask(page: Page, text: str) -> None:
    """Ask and wait for the answers."""
    page.get_by_label("Say").fill(text)
    page.get_by_label("Say").press("Enter")
    page.get_by_role("status").get_by_text("Answered.").wait_for()


def talk_of(page: Page, served: Paged) -> OpenTalk:
    return served.site.talks.find(page.url.partition("talk=")[2])


@BOTH
def test_two_answer_and_what_is_kept_is_under_data(page: Page, served: Paged) -> None:
    look = page.viewport_size["width"]  # type: ignore[index]
    page.goto(f"{served.origin}/chat")
    page.get_by_label("Model").select_option("mine")
    page.get_by_label("Beside it").select_option("nano")
    page.get_by_label("Most tokens").fill("40")
    ask(page, f"Who came to the house at {look} in May?")
    answers = page.locator(".answer")
    assert answers.count() == 2
    names = page.locator(".side h4").all_inner_texts()
    assert names == ["mine", "nano"]
    assert page.locator(".note").all_inner_texts()[0].count(" read") == 1
    assert page.get_by_label("Say").evaluate("one => one === document.activeElement")
    heard = page.locator("[aria-live] p").all_text_contents()
    assert heard == [f"{name}: {answers.nth(n).inner_text()}" for n, name in enumerate(names)]
    page.get_by_label("dataset").fill("sums")
    answers.nth(0).focus()
    page.keyboard.press("r")
    row = page.get_by_role("status").get_by_text(re.compile("kept in data/sums.jsonl"))
    row.wait_for()
    page.get_by_text("Correct it before it is kept").nth(1).click()
    page.get_by_label("The right answer").nth(1).fill("my aunt")
    page.get_by_role("button", name="Keep as an item: nano").click()
    page.get_by_role("status").get_by_text(re.compile("kept in data/dev.jsonl")).wait_for()
    assert serious(page) == []
    assert too_wide(page) == []
    page.get_by_role("link", name="See the version").last.click()
    assert page.locator("h1").inner_text().startswith("sums, version")
    page.get_by_label("Text").fill("my aunt")
    page.get_by_role("button", name="Show").click()
    assert f"Who came to the house at {look}" in page.locator("tbody").inner_text()


@ONE
def test_an_answer_is_seen_while_it_is_written(page: Page, served: Paged) -> None:
    page.goto(f"{served.origin}/chat?tokens=150")
    page.get_by_label("Model").select_option("nano")
    page.evaluate(GREW)
    ask(page, "Who?")  # nano doesn't end what it says to that
    assert ", at the limit" in page.locator(".note").inner_text()
    assert page.evaluate("window.seen.size") > 2


@ONE
def test_the_keyboard_alone_asks_again_and_keeps(page: Page, served: Paged) -> None:
    page.goto(f"{served.origin}/chat?tokens=8")
    ask(page, "What is 2 plus 1?")
    page.get_by_label("Say").press("Shift+Tab")  # back to the answer, over its buttons
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className") == "answer"
    page.goto(f"{served.origin}/chat?tokens=8")
    ask(page, "What is 2 plus 1?")
    page.goto(page.url)  # the same talk, from the top
    stops = tab_stops(page)
    assert [one.place for one in stops] == sorted(one.place for one in stops)
    assert [one.text for one in stops if not one.seen] == []
    page.goto(page.url)
    ask(page, "And now?")
    assert page.locator(".turn").count() == 2


@NARROWLY_DARK
def test_what_goes_wrong_is_said_and_nothing_typed_is_lost(
    page: Page, served: Paged, watch: Watch
) -> None:
    page.goto(f"{served.origin}/chat?tokens=0")
    page.get_by_label("Say").fill("Hello")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("alert").get_by_text("'0' is no number of tokens").wait_for()
    assert page.get_by_label("Say").input_value() == "Hello"
    [problem] = watch.problems  # Chromium's own line on the refusal
    assert "400 (Bad Request)" in problem
    watch.problems.clear()
    page.get_by_role("button", name="New talk").click()
    page.wait_for_load_state()
    assert page.get_by_label("Say").input_value() == "Hello"
    assert serious(page) == []
    assert too_wide(page) == []


@ONE
def test_an_answer_is_stopped_and_who_leaves_takes_it_along(page: Page, served: Paged) -> None:
    long = f"{served.origin}/chat?tokens=1900"  # nano goes on to the limit: a minute
    page.goto(long)
    page.get_by_label("Say").fill("Who?")
    page.get_by_label("Say").press("Enter")
    page.locator(".answer:not(:empty)").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text(re.compile(", stopped; ")).wait_for()
    page.goto(long)
    page.get_by_label("Say").fill("Who?")
    page.get_by_label("Say").press("Enter")
    page.locator(".answer:not(:empty)").wait_for()
    one = talk_of(page, served)
    page.goto(f"{served.origin}/running")
    until = time.monotonic() + 60
    while one.is_busy:
        assert time.monotonic() < until
        page.wait_for_timeout(50)
    assert one.turns[-1].answers[0].done.reason == "cancelled"  # type: ignore[union-attr]


@ONE
def test_it_works_without_scripts(page: Page, served: Paged) -> None:
    page.context.route(
        "**/*.js", lambda route: route.fulfill(body="", content_type="text/javascript")
    )
    page.goto(f"{served.origin}/chat?model=mine&against=nano&tokens=8")
    page.get_by_label("Say").fill("What is 2 plus 1?")
    page.get_by_role("button", name="Ask").click()
    page.locator(".answer").nth(1).wait_for()
    page.get_by_role("button", name="Keep as a row: mine").click()
    page.get_by_text("kept in data/").wait_for()
