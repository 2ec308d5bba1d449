"""Eight ask at once, and another process commits meanwhile: each page is whole, and right."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest

from pipeline.site.guard import Access
from pipeline.site.site import Site
from registry.errors import UserError
from tests.integration.pipeline.site.conftest import PORT, Ask
from tests.support.shown_store import Shown

if TYPE_CHECKING:
    from pathlib import Path

    from httpx2 import Response

THREADS = 8
TAGS = ("v1", "v2", "v3")


def addresses(made: Shown) -> list[str]:
    """Return one of each kind of page that reads something."""
    first, last = made.adapters
    before, after = (made.evals[of, "colours"] for of in ("", last))
    version = f"/data/{made.versions[1]}"
    question = "select stage, count(*) as n from runs group by stage order by stage"
    return [
        *("/", "/runs", "/adapters", "/data", "/sql", "/running", "/alias/candidate"),
        *(f"/adapter/{last}", f"/compare?id={first}&id={last}", f"/thing/{made.push}"),
        *(f"/items?of={last}&way=lost", f"/item?after={after}&before={before}&row=3&near=1"),
        *(version, f"{version}?split=test", f"{version}?text=question 1"),
        *(f"{version}?part=near-duplicates", f"{version}?part=rejects"),
        f"/data/diff?a={made.versions[0]}&b={made.versions[1]}&show=added",
        *(f"/selection/{made.selections[0]}", "/row/4", f"/lineage/{last}"),
        *(f"/adapter/{last}/chart/loss.svg", f"/lineage/{made.versions[1]}?down=1"),
        f"/sql.csv?q={question}",
    ]  # fmt: skip


def tag(root: Path, names: tuple[str, ...]) -> None:
    """Commit something each time, as another process of a person's."""
    for name in names:
        _tag(root, name)


def _tag(root: Path, name: str) -> None:
    verb = ("dataset", "tag", "talk", name, "-C", str(root))
    program = (sys.executable, "-c", "from pipeline.cli.start import main; main()")
    subprocess.run([*program, *verb], check=True, capture_output=True, timeout=120)


def test_eight_at_once_get_what_one_gets(made: Shown, ask: Ask) -> None:
    access, pages = Access.to("127.0.0.1", PORT), addresses(made)
    alone = {one: ask(made.root, access).get(one) for one in pages}
    assert {answer.status_code for answer in alone.values()} == {200}
    fresh = ask(made.root, access)  # nothing is in its memory
    with ThreadPoolExecutor(THREADS) as threads:
        for one, answer in threads.map(lambda one: (one, fresh.get(one)), [*pages, *pages]):
            assert answer.status_code == 200, (one, answer.text)
            assert answer.content == alone[one].content, one


def test_who_commits_meanwhile_breaks_no_page(own: Shown, ask: Ask) -> None:
    page, pages = ask(own.root), addresses(own)
    with ThreadPoolExecutor(THREADS + 1) as threads:
        commits = threads.submit(tag, own.root, TAGS)
        answers: list[Response] = []
        while not commits.done():
            some = islice(cycle(pages), len(answers), len(answers) + THREADS)
            answers += threads.map(page.get, some)
        commits.result()
    assert len(answers) > len(pages)
    assert [one.text for one in answers if one.status_code != 200] == []
    data = page.get("/data").text
    assert all(name in data for name in TAGS)


def test_what_takes_long_is_made_once_for_all_who_wait(made: Shown) -> None:
    site = Site.of(made.root, Access.to("127.0.0.1", PORT))
    began, may_end = threading.Event(), threading.Event()
    times: list[int] = []

    def make() -> int:
        began.set()
        may_end.wait(30)
        times.append(len(times))
        if len(times) == 1:
            raise UserError("not yet")
        return len(times)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(site.once, "key", make)
        began.wait(30)
        second = threads.submit(site.once, "key", make)
        time.sleep(0.1)
        may_end.set()
        for one in (first, second):
            with pytest.raises(UserError, match="not yet"):
                one.result(30)
    # A failure isn't remembered, and what was made is.
    assert [site.once("key", make), site.once("key", make), len(times)] == [2, 2, 2]
