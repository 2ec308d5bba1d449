"""Every kind of link of the local page leads somewhere, at both widths."""

from __future__ import annotations

import re
from collections import Counter, deque
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urlsplit

import pytest

from tests.support.browsing import NARROW, WIDE, too_wide
from tests.support.paged import Paged, paged
from tests.support.shown_store import make

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

_EACH = 1  # of a kind: the links of a list differ by an id alone
_LINKS = "Array.from(document.querySelectorAll('a[href]')).map(one => one.href)"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paged]:
    with paged(make(tmp_path_factory.mktemp("linked") / "ws").root) as page:
        yield page


@pytest.fixture
def origins(served: Paged) -> tuple[str, ...]:
    """Only this server may be asked; see conftest.py."""
    return (served.origin,)


def kind_of(url: str) -> str:
    """Return an address without what tells one thing from another: ids, numbers, values."""
    parts = urlsplit(url)
    names = sorted(part.partition("=")[0] for part in parts.query.split("&"))
    return re.sub(r"/[0-9a-f]{6,}|/[0-9]+", "/*", parts.path) + "?" + ",".join(names)


@pytest.mark.parametrize("page", [NARROW, WIDE], indirect=True, ids=str)
def test_every_kind_of_link_leads_somewhere(page: Page, served: Paged) -> None:
    waiting = deque([served.origin + "/"])
    known, times = set(waiting), Counter[str]()
    while waiting:
        at = waiting.popleft()
        answer = page.goto(at)
        assert answer is not None, at
        assert answer.status == 200, at
        assert page.locator("h1").count() == 1, at
        assert too_wide(page) == [], at
        for found in page.evaluate(_LINKS):
            url = urldefrag(found).url
            if url in known or not url.startswith(served.origin):
                continue
            known.add(url)
            times[kind_of(url)] += 1
            if times[kind_of(url)] > _EACH:
                continue
            if page.request.get(url).headers["content-type"].startswith("text/html"):
                waiting.append(url)
    assert len(times) > 20, times  # kinds of addresses
