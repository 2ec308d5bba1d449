"""Pages in a real Chromium, the system's, by Playwright. Without one the tests are skipped.

`page` is a page at two widths, light and dark; `@pytest.mark.parametrize("page", [WIDE],
indirect=True)` asks for one look alone. A test whose page complains on the console, throws, or asks
anything of anyone fails; who tests a server names it by a fixture `origins` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.verbs.report import report
from pipeline.workspace.store import WorkspaceStore
from tests.e2e.conftest import gapmend
from tests.support.browsing import LOOKS, Look, Watch, arguments, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_PATIENCE_MS = 120_000  # a machine may be busy: what is quick is measured elsewhere


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where there is none, and say so."""
    if chromium() is None:
        missing = "no chromium here: apt-get install chromium"
    elif find_spec("playwright") is None:
        missing = "playwright is not installed"
    else:
        return
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=arguments())
        yield started
        started.close()


@pytest.fixture(scope="session")
def quickstart(
    project_root: Path,
    browser: Browser,  # noqa: ARG001 - no report without a browser
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The address of the report of the quickstart's champion, which `./just demo` has made."""
    workspace = project_root / "examples" / "quickstart"
    if not (workspace / ".gapmend" / "catalog.duckdb").is_file():
        done = gapmend("run", "-C", workspace, timeout=900)
        assert done.code == 0, done.err[-2000:]
    file = tmp_path_factory.mktemp("report") / "report.html"
    report(WorkspaceStore.open(workspace), "champion", out=file)
    return file.as_uri()


@pytest.fixture
def origins() -> tuple[str, ...]:
    """The servers that a page may ask: none, for a page that is a file."""
    return ()


@pytest.fixture
def watch(origins: tuple[str, ...]) -> Iterator[Watch]:
    """What went wrong in the test's pages, and nothing may."""
    seen = Watch(origins)
    yield seen
    assert not seen.problems, "\n".join(seen.problems)


@pytest.fixture(params=LOOKS, ids=str)
def page(browser: Browser, watch: Watch, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page in a context of its own, watched."""
    look: Look = request.param
    context = browser.new_context(
        viewport={"width": look.width, "height": 900},
        color_scheme="dark" if look.scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(_PATIENCE_MS)
    watch.over(context)
    yield context.new_page()
    context.close()
