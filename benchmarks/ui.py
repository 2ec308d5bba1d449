"""How long each page of `gapmend ui` takes on a workspace of 1,000 runs and 1 M rows.

    PYTHONPATH=. python benchmarks/ui.py [--chains 249] [--rows 1000000] [--items 50000]
                                         [--repeats 5] [--folder DIR] [--json FILE]

A chain is a selection, an adapter, what it lost and a decision: four runs. Milliseconds of one page
as its server answers it, no network: the median of `repeats` pages that nobody has asked for before
(another offset, adapter or row), and the first one, for which what the server keeps in memory is
read: the catalog, and each file's hash. The last lines are questions that read all rows of a
version, and charts, which a page doesn't wait for. With --folder, what was made is used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.testclient import TestClient

from pipeline.site.app import app
from pipeline.site.guard import Access
from pipeline.site.site import Site
from tests.support.shown_store import Shown, Sizes, make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
PORT = 8642
WORDS = 60  # a row has so many more: about 400 bytes
PICKED = 2000
MADE = "made.json"
HEAD = f"{'metric':<44}{'first':>8}{'ours':>8}{'target':>8}"


@dataclass(frozen=True)
class Figure:
    """One page, in milliseconds: `first` the first time, `ours` the median of the others."""

    metric: str
    ours: float
    peer: float | None
    ratio: float | None
    target: float | None
    holds: bool
    first: float

    def line(self) -> str:
        """Return it as a line of the table."""
        held = "" if self.target is None else "holds" if self.holds else "missed"
        target = "-" if self.target is None else f"{self.target:g}"
        return f"{self.metric:<44}{self.first:>8.0f}{self.ours:>8.0f}{target:>8}  {held}"


def prepared(folder: Path, sizes: Sizes) -> Shown:
    """Make the workspace unless it is there."""
    known = folder / MADE
    if known.exists():
        said = json.loads(known.read_text())
        evals = {tuple(key.split("|")): one for key, one in said.pop("evals").items()}
        return Shown(**{**said, "root": Path(said["root"])}, evals=evals)
    began = time.perf_counter()
    made = make(folder / "ws", sizes)
    print(f"made in {time.perf_counter() - began:.0f} s")
    said = {**vars(made), "root": str(made.root)}
    said["evals"] = {"|".join(key): one for key, one in made.evals.items()}
    known.write_text(json.dumps(said))
    return made


def pages(made: Shown) -> Iterator[tuple[str, Callable[[int], str]]]:
    """Give each kind of page and its address the n-th time."""
    adapters, version = made.adapters, made.versions[-1]
    newest = adapters[-1]
    yield "overview", lambda _: "/"
    yield "runs", lambda n: f"/runs?page={n}"
    yield "runs of a stage", lambda n: f"/runs?stage=train&page={n}"
    yield "adapters", lambda n: f"/adapters?page={n}"
    yield "an adapter", lambda n: f"/adapter/{adapters[n]}"
    yield "two adapters side by side", lambda n: f"/compare?id={adapters[n]}&id={adapters[n + 1]}"
    yield "items, 50,000 of each", lambda n: f"/items?of={newest}&page={n}"
    yield "items that were lost", lambda n: f"/items?of={newest}&way=lost&page={n}"
    yield "items of a text", lambda n: f"/items?of={newest}&subject=moods&text=question {n}7"
    after, before = made.evals[newest, "moods"], made.evals["", "moods"]
    yield "an item", lambda n: f"/item?after={after}&before={before}&row={n + 1}"
    yield "data", lambda _: "/data"
    yield "rows of a version", lambda n: f"/data/{version}?page={n * 100}"
    yield "rows of a split", lambda n: f"/data/{version}?split=test&page={n * 100}"
    yield "rejects of a version", lambda n: f"/data/{version}?part=rejects&page={n}"
    yield "a selection", lambda n: f"/selection/{made.selections[n]}"
    yield "a row", lambda n: f"/row/{n + 2}"
    yield "lineage up", lambda n: f"/lineage/{adapters[n]}"
    yield "lineage down", lambda n: f"/lineage/{made.selections[n]}?down=1"
    yield "a run", lambda n: f"/thing/{made.runs[-3 - n]}"
    yield "sql, without a question", lambda _: "/sql"
    yield "chat, nothing said yet", lambda _: "/chat"
    yield "a name", lambda _: "/alias/champion"
    yield "what runs", lambda _: "/running"


def heavy(made: Shown) -> Iterator[tuple[str, Callable[[int], str]]]:
    """Give what reads all rows of a version, or draws."""
    a, b = made.versions
    newest = made.adapters[-1]
    item = f"/item?after={made.evals[newest, 'moods']}&near=1"
    yield "near-duplicates of 1 M rows", lambda n: f"/data/{b}?part=near-duplicates&page={n}"
    yield "a text among 1 M rows", lambda n: f"/data/{b}?text=question {n}77"
    yield "diff of 0.5 and 1 M rows", lambda n: f"/data/diff?a={a}&b={b}&show={GROUPS[n % 3]}"
    yield "rows nearest to an item", lambda n: f"{item}&row={n + 1}"
    yield "sql over all runs", lambda n: f"/sql?q=select stage, count(*) + {n} from runs group by 1"  # noqa: S608 - a person's
    yield "a chart", lambda n: f"/adapter/{made.adapters[n]}/chart/loss.svg"


GROUPS = ("added", "removed", "changed")


def measured(client: TestClient, at: Callable[[int], str], repeats: int) -> tuple[float, float]:
    """Return milliseconds: of the first page, and the median of those after it."""
    took = []
    for number in range(repeats + 1):
        began = time.perf_counter()
        answer = client.get(at(number))
        took.append(1000 * (time.perf_counter() - began))
        if answer.status_code != 200:  # noqa: PLR2004 - in order
            raise SystemExit(f"{at(number)}: {answer.status_code} {answer.text}")
    return took[0], statistics.median(took[1:])


def figures(made: Shown, repeats: int) -> Iterator[Figure]:
    """Measure every page."""
    target = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["ui"]["page_ms"]
    access = Access.to("127.0.0.1", PORT)
    client = TestClient(app(Site.of(made.root, access)), base_url=f"http://127.0.0.1:{PORT}")
    for limit, kinds in ((target, pages(made)), (None, heavy(made))):
        for name, at in kinds:
            first, ours = measured(client, at, repeats)
            holds = limit is None or ours <= limit
            yield Figure(name, round(ours, 1), None, None, limit, holds, round(first, 1))


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=249)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="make the workspace here, or find it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    sizes = Sizes(given.rows, WORDS, given.chains, given.items, 1000, PICKED, 200)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        made = prepared(given.folder or Path(temporary), sizes)
        print(f"{len(made.runs):,} runs, {given.rows:,} rows\n{HEAD}")
        for figure in figures(made, given.repeats):
            found.append(figure)
            print(figure.line(), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
