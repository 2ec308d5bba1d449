"""How long each page of `gapmend ui` takes on a workspace of 1,000 runs and 1 M rows.

    PYTHONPATH=. python benchmarks/ui.py [--chains 249] [--rows 1000000] [--items 50000]
                                         [--repeats 5] [--only TEXT] [--folder DIR] [--json FILE]

A chain is a selection, an adapter, what it lost and a decision: four runs. Milliseconds of one page
as its server answers it, no network: wall-clock, and CPU of the whole process, which other work on
the machine doesn't lengthen. `first` is the first page of its kind, for which the files are hashed
that it reads; what every page needs, the server loads as it starts. `ours` is the median of
`repeats` pages that nobody has asked for before (another offset, adapter or row). The last lines
are questions that read all rows of a version, and charts, which a page doesn't wait for; then pages
asked by eight at once. Behind each line is what the process holds: with --folder, what was made is
used again, and not counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from starlette.testclient import TestClient

from pipeline.site.app import app
from pipeline.site.guard import Access
from pipeline.site.serve import warm
from pipeline.site.site import Site
from pipeline.workspace.store import WorkspaceStore
from tests.support.shown_store import Shown, Sizes, make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
PORT = 8642
WORDS = 60  # a row has so many more: about 400 bytes
PICKED, LOST = 2000, 1000  # rows that a selection has, and items that it is told of
AT_ONCE, ROUNDS = 8, 4
MADE = "made.json"
HEAD = f"{'metric':<36}{'first':>8}{'CPU':>7}{'ours':>8}{'CPU':>7}{'target':>8}"


@dataclass(frozen=True)
class Figure:
    """One page, in milliseconds: `first` the first time, `ours` the median of the others.

    `first_cpu` and `cpu` are those of the process.
    """

    metric: str
    ours: float
    peer: float | None
    ratio: float | None
    target: float | None
    holds: bool
    first: float
    first_cpu: float
    cpu: float

    def line(self) -> str:
        """Return it as a line of the table."""
        held = "" if self.target is None else "holds" if self.holds else "missed"
        target = "-" if self.target is None else f"{self.target:g}"
        numbers = f"{self.first:>8.0f}{self.first_cpu:>7.0f}{self.ours:>8.0f}{self.cpu:>7.0f}"
        return f"{self.metric:<36}{numbers}{target:>8}  {held}"


def prepared(folder: Path, sizes: Sizes) -> Shown:
    """Make the workspace unless it is there."""
    known = folder / MADE
    if known.exists():
        said = json.loads(known.read_text())
        evals = {tuple(key.split("|")): one for key, one in said.pop("evals").items()}
        return Shown(**{**said, "root": Path(said["root"])}, evals=evals)
    began = time.perf_counter()
    made = make(folder / "ws", sizes)
    kept = WorkspaceStore.open(made.root)
    kept.catalog.move_alias(
        kept.store, "champion", made.adapters[-1], reason="the overview shows it"
    )
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
    yield "a row", lambda n: f"/row/{made.picked[n]}"
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


@dataclass(frozen=True)
class Took:
    """Milliseconds of a page: wall-clock, and CPU of the process."""

    wall: float
    cpu: float


def got(client: TestClient, address: str) -> Took:
    """Ask for a page, which has to be in order."""
    began, used = time.perf_counter(), time.process_time()
    answer = client.get(address)
    took = Took(1000 * (time.perf_counter() - began), 1000 * (time.process_time() - used))
    if answer.status_code != 200:  # noqa: PLR2004 - in order
        raise SystemExit(f"{address}: {answer.status_code} {answer.text}")
    return took


def figure(name: str, limit: float | None, took: list[Took]) -> Figure:
    """Return the figure of a kind of page: of its first one, and the median of those after it."""
    first, *others = took
    wall, cpu = (statistics.median(getattr(one, of) for one in others) for of in ("wall", "cpu"))
    holds = limit is None or wall <= limit
    numbers = (round(one, 1) for one in (first.wall, first.cpu, cpu))
    return Figure(name, round(wall, 1), None, None, limit, holds, *numbers)


def figures(made: Shown, repeats: int, only: str) -> Iterator[Figure]:
    """Measure every page."""
    target = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["ui"]["page_ms"]
    access = Access.to("127.0.0.1", PORT)
    site = Site.of(made.root, access)
    began = time.perf_counter()
    warm(site)
    print(f"{time.perf_counter() - began:.1f} s beside the start; {held():.0f} MiB\n{HEAD}")
    client = TestClient(app(site), base_url=f"http://127.0.0.1:{PORT}")
    asked: list[str] = []
    for limit, kinds in ((target, pages(made)), (None, heavy(made))):
        for name, at in kinds:
            if only in name:
                took = [got(client, at(number)) for number in range(repeats + 1)]
                asked += [at(repeats + 1)] if limit else []
                yield figure(name, limit, took)
    for name, address in (("overview", "/"), ("an adapter", f"/adapter/{made.adapters[0]}")):
        if only in (said := f"{name}, after a commit"):
            yield figure(said, target, [*after_commits(client, made, address, repeats + 1)])
    if not only:
        yield at_once(client, asked)


def after_commits(client: TestClient, made: Shown, address: str, times: int) -> Iterator[Took]:
    """Ask for a page each time that something was committed."""
    ws = WorkspaceStore.open(made.root)
    for number in range(times):
        ws.catalog.move_alias(ws.store, "measured", made.adapters[number])
        yield got(client, address)


def at_once(client: TestClient, asked: list[str]) -> Figure:
    """Ask for pages by eight at once, several times: the longest, and the time by page."""
    addresses = [*itertools.chain.from_iterable([asked] * ROUNDS)]
    began, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        took = [*threads.map(lambda address: got(client, address).wall, addresses)]
    wall = 1000 * (time.perf_counter() - began) / len(addresses)
    cpu = 1000 * (time.process_time() - used) / len(addresses)
    name = f"{len(addresses)} pages, {AT_ONCE} at once, by page"
    return figure(name, None, [Took(max(took), cpu), Took(wall, cpu)])


def held() -> float:
    """Return the MiB that this process holds."""
    return float(psutil.Process().memory_info().rss) / 2**20


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=249)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="pages that are called so")
    parser.add_argument("--folder", type=Path, help="make the workspace here, or find it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    apart = (given.rows - 2) // PICKED
    sizes = Sizes(given.rows, WORDS, given.chains, given.items, 1000, PICKED, 200, apart, LOST)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        made = prepared(given.folder or Path(temporary), sizes)
        print(f"{len(made.runs):,} runs, {given.rows:,} rows; {held():.0f} MiB")
        for one in figures(made, given.repeats, given.only):
            found.append(one)
            print(one.line(), f"  {held():.0f} MiB", flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
