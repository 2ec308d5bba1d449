"""Every page, as a browser would read it: what the data say is text, and the page can be used."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import pytest

from tests.support.shown_store import EVIL, Shown

if TYPE_CHECKING:
    from starlette.testclient import TestClient

_OURS = {("script", "/static/running.js"), ("script", "/static/chat.js")}
_A_KIND = 1  # pages of one kind that are opened
_MOST = 120


class Read(HTMLParser):
    """What stands on a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.problems: list[str] = []
        self.headings: list[int] = []
        self.said: list[str] = []
        self._labels = 0
        self._table: set[str] = set()
        self.feed(text)
        if self.headings[:1] != [1] or self.headings.count(1) != 1:
            self.problems.append(f"headings {self.headings}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self._acts(tag, has)
        self._stands(tag, has)
        self._labels += tag == "label"
        if tag == "table":
            self._table = set()
        if tag == "caption" or (tag == "th" and has.get("scope")):
            self._table.add(tag)
        if re.fullmatch("h[1-6]", tag):
            if self.headings and int(tag[1]) > self.headings[-1] + 1:
                self.problems.append(f"{tag} after h{self.headings[-1]}")
            self.headings.append(int(tag[1]))

    def _acts(self, tag: str, has: dict[str, str | None]) -> None:
        self.problems += [f"{tag} has {n}" for n in has if n.startswith("on") or n == "style"]
        for name in {"href", "src", "action"} & has.keys():
            self._address(tag, has[name] or "")
        if tag in ("iframe", "object", "embed", "base", "style"):
            self.problems.append(f"a {tag}")
        if tag == "script" and (tag, has.get("src")) not in _OURS:
            self.problems.append("a script")

    def _stands(self, tag: str, has: dict[str, str | None]) -> None:
        field = tag in ("input", "select", "textarea") and has.get("type") != "hidden"
        if field and not (self._labels or "aria-label" in has or has.get("id") == "q"):
            self.problems.append(f"{tag} {has.get('name')} has no label")
        if tag == "img" and not has.get("alt"):
            self.problems.append("an image without words")

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self._labels -= 1
        if tag == "table" and self._table != {"caption", "th"}:
            self.problems.append("a table without caption or scopes")

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def _address(self, tag: str, value: str) -> None:
        if not re.match(r"/(?!/)|#", value):
            self.problems.append(f"{tag} leads to {value!r}")
        elif tag == "a":
            self.links.append(value)


def kind(path: str) -> str:
    """Return what of an address is the same for all pages of a kind."""
    parts = urlsplit(path)
    names = sorted(re.findall(r"(?:^|&)(\w+)=", parts.query))
    return f"{re.sub(r'[0-9a-f]{64}|talk@?|[0-9]+', '*', parts.path)}?{names}"


@pytest.mark.timeout(900)
def test_all_that_is_linked_can_be_opened_and_what_the_data_say_is_text(
    page: TestClient, made: Shown
) -> None:
    todo = ["/", f"/thing/{made.push}", f"/thing/{made.failed}", f"/row/{3}",
            f"/compare?id={made.adapters[0]}&id={made.adapters[1]}",
            f"/data/diff?a={made.versions[0]}&b={made.versions[1]}"]  # fmt: skip
    opened: dict[str, list[str]] = {}
    problems, evil = [], 0
    while todo and sum(map(len, opened.values())) < _MOST:
        path = todo.pop(0)
        same = opened.setdefault(kind(path), [])
        if path in same or len(same) >= _A_KIND:
            continue
        same.append(path)
        answer = page.get(path)
        if answer.status_code != 200:
            problems.append(f"{path}: {answer.status_code} {answer.text[-400:]}")
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        if "\x1b" in answer.text or "\u202e" in answer.text:
            problems.append(f"{path}: a sequence that acts")
        read = Read(answer.text)
        problems += [f"{path}: {one}" for one in read.problems]
        evil += sum("javascript:alert" in one for one in read.said)
        todo += [urljoin(path, one.partition("#")[0]) for one in read.links]
    assert not problems, "\n".join(problems)
    assert evil > 20  # it was there, as text
    wanted = ["/", "/runs", "/adapters", "/items", "/data", "/sql", "/chat", "/running",
              "/data/diff", "/item", "/row/*", "/selection/*", "/adapter/*", "/lineage/*",
              "/thing/*", "/alias/champion", "/sql.csv"]  # fmt: skip
    assert {one.partition("?")[0] for one in opened} >= set(wanted)


def test_a_sequence_for_terminals_is_shown(page: TestClient, made: Shown) -> None:
    text = page.get(f"/thing/{made.failed}").text
    assert r"\u001b[31m" in text
    assert EVIL not in text


def test_what_is_asked_comes_back_as_text(page: TestClient) -> None:
    for path in ("/sql?q=", "/items?text=", "/thing/", "/nothing/", "/data/talk?text="):
        text = page.get(f'{path}"><script>alert(1)</script>{{{{7*7}}}}').text
        assert "<script>alert" not in text
        assert "49" not in re.sub(
            r"[0-9a-f]{12,}|[0-9]{3,}", "", text.split("<main")[1].split("Views")[0]
        )


def test_charts_are_images_that_run_nothing(page: TestClient, made: Shown) -> None:
    found = page.get(f"/adapter/{made.adapters[-1]}/chart/selection-0.svg")
    assert found.headers["content-type"] == "image/svg+xml"
    policy = found.headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[^']+'; frame-ancestors 'none'", policy
    )
    assert "<script" not in found.text
    assert 'xmlns="http://www.w3.org/2000/svg"' in found.text
    assert page.get(f"/adapter/{made.adapters[-1]}/chart/other.svg").status_code == 404
