"""Row-level lineage at 10 M rows and 1,000 selections: how long it takes to ask, and its size.

    python benchmarks/rows_scale.py [--rows 10000000] [--selections 1000] [--repeats 5]
                                    [--folder DIR] [--json FILE]

Each selection has a tenth of the rows, drawn by chance (the worst case for bitmaps: nothing to
compress but the share), a run and an adapter; all are put and committed as a stage does it. Their
`rows.parquet` (reasons, in the order of training) is left out: a question about a row doesn't read
it, and a million hashes of 32 bytes would be 32 MB a selection. Seconds are wall-clock, medians of
processes that were started cold: their start and their imports are counted, the disk's cache is
what it was. With --folder, what was made there before is used again.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.catalog.catalog import Catalog
from registry.lineage.bitmaps import write_bitmaps
from registry.store.objects import Parent, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.store.objects import ObjectRef

HERE = Path(__file__).parent
SHARE = 0.1
AT_ONCE = 50  # selections to a commit
GIGABYTE = 1e9
GAPMEND = str(Path(sys.executable).with_name("gapmend"))
ASK = (
    "import json, sys; from pathlib import Path; from registry.catalog.catalog import Catalog\n"
    "answer = Catalog(Path(sys.argv[1])).sql(f'FROM adapters_that_saw({int(sys.argv[2])})')\n"
    "print(json.dumps([row[0] for row in answer.rows]))"
)


@dataclass(frozen=True)
class Figure:
    """One metric: what was measured, at most `target`; without a target it is only told."""

    metric: str
    ours: float
    target: float | None
    holds: bool

    def line(self) -> str:
        """Return it as a line of the table."""
        target = "-" if self.target is None else f"{self.target:g}"
        held = "" if self.target is None else "holds" if self.holds else "missed"
        return f"{self.metric:<44}{self.ours:>8.3f}{target:>8}  {held}".rstrip()


class Timed(NamedTuple):
    """Wall-clock and CPU seconds of a process, and what it printed."""

    wall: float
    cpu: float
    printed: str


def at_most(metric: str, ours: float, target: float | None = None) -> Figure:
    """Return the figure of a metric that has an upper limit, or none."""
    return Figure(metric, ours, target, target is None or ours <= target)


def drawn(rows: int, number: int) -> NDArray[np.bool_]:
    """Return which uids are in a selection."""
    return np.random.default_rng(number).random(rows, np.float32) < SHARE


def make(root: Path, rows: int, selections: int) -> None:
    """Put and commit the selections, with a run and an adapter each."""
    store, catalog = Store(root), Catalog(root)
    for first in range(0, selections, AT_ONCE):
        made: list[ObjectRef] = []
        for number in range(first, min(first + AT_ONCE, selections)):
            made += _selected(store, np.flatnonzero(drawn(rows, number)), number)
        catalog.commit(made)


def _selected(store: Store, uids: NDArray[np.int64], number: int) -> tuple[ObjectRef, ...]:
    with store.draft() as draft:
        write_bitmaps(uids, draft / "bitmaps.parquet")
        meta = {"base": "nano", "rows": len(uids), "replay_rows": 0, "budget": {}, "round": 0}
        selection = store.put("selection", draft, identity={"number": number}, meta=meta)
    parents = [Parent(selection.id, "selection")]
    about = {"stage": "train", "status": "done", "seconds": 41.5, "outputs": []}
    identity = {"stage": "train", "key": str(number)}
    run = store.put("run", None, identity=identity, parents=parents, meta=about)
    adapter = store.put(
        "adapter",
        None,
        identity={"number": number},
        parents=[Parent(run.id, "run"), *parents],
        meta={"base": "nano", "method": "lora", "rank": 16},
    )
    return selection, run, adapter


def measure(root: Path, rows: int, selections: int, repeats: int) -> list[Figure]:
    """Ask about some rows and add up the files; what is answered is held against the draws."""
    targets: dict[str, float] = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["data"]
    asked = random.Random(0).sample(range(rows), repeats)
    seen = sum(int(drawn(rows, number)[asked].sum()) for number in range(selections))
    python, gapmend, found = [], [], 0
    for uid in asked:
        python.append(timed([sys.executable, "-c", ASK, str(root), str(uid)]))
        found += len(json.loads(python[-1].printed))
        sql = f"from adapters_that_saw({uid})"
        gapmend.append(timed([GAPMEND, "sql", sql, "-f", "json", "-C", str(root.parent)]))
    if found != seen:
        message = f"{found} answers about {repeats} rows, {seen} expected"
        raise AssertionError(message)
    wall, cpu = (statistics.median(took) for took in zip(*(one[:2] for one in python), strict=True))
    by_verb = statistics.median(one.wall for one in gapmend)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return [
        at_most("adapters that saw a row, s", wall, targets["saw_seconds"]),
        at_most("  of both cores, CPU s", cpu),
        at_most("  the same by `gapmend sql`, s", by_verb),
        at_most("storage, GB", size / GIGABYTE, targets["lineage_gigabytes"]),
    ]


def timed(call: list[str]) -> Timed:
    """Run a process to its end."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = subprocess.check_output(call, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(wall, cpu, printed)


def main() -> None:
    """Make what is asked, measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--selections", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="make, or find, the store here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        root = folder / ".gapmend"
        if not root.is_dir():
            began = time.perf_counter()
            make(root, given.rows, given.selections)
            (folder / "gapmend.yaml").touch()  # `gapmend sql` looks for a workspace
            print(f"made in {time.perf_counter() - began:.0f} s")
        figures = measure(root, given.rows, given.selections, given.repeats)
    for figure in figures:
        print(figure.line())
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
