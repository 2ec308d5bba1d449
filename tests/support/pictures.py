"""Make the pictures of pages that stand in the documents, light and dark.

The report is that of the quickstart's champion. Pages that are served are named by an address:

    python -m tests.support.pictures
    python -m tests.support.pictures page=http://127.0.0.1:8000/
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.browsing import arguments, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "guide" / "pictures"
_SIZE = {"width": 1100, "height": 1500}
_COLOURS = 256  # of a picture: text, lines and a chart need no more, and it is half as large


def main() -> None:
    """Make the report's pictures, or those of the pages that the arguments name."""
    from playwright.sync_api import sync_playwright

    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        pages = named or {"report": _report(Path(folder) / "report.html")}
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments())
        for name, address in pages.items():
            _take(browser, name, address, "light")
            _take(browser, name, address, "dark")
        browser.close()


def _report(file: Path) -> str:
    from pipeline.verbs.report import report
    from pipeline.workspace.store import WorkspaceStore

    report(WorkspaceStore.open(ROOT / "examples" / "quickstart"), "champion", out=file)
    return file.as_uri()


def _take(browser: Browser, name: str, address: str, scheme: str) -> None:
    from PIL import Image

    context = browser.new_context(
        viewport={"width": _SIZE["width"], "height": _SIZE["height"]},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    taken = Image.open(io.BytesIO(page.screenshot()))
    context.close()
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}-{scheme}.png"
    taken.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
