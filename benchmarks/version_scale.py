"""What it takes to use a large dataset: gap on 2 M rows, and the whole loop on more.

    python benchmarks/version_scale.py [--rows 2000000] [--repeats 3] [--loop 0]
                                       [--folder DIR] [--json FILE]

Rows are questions of 807 bytes on average with one of twelve answers, which the spec doesn't list
(`answer: choice`); gap scores 50 of them. Its peak memory is told less that of a process that only
loads the base, its CPU seconds less those of the same gap on 2,000 such rows: what is left is what
the size of the dataset costs. Each repeat asks by a prompt of its own, so that nothing is known
from before; medians. With --loop N, N rows of 160 bytes go once through ingest, gap, select and
train on nano with a budget of 500 (10,000,000 is what the target is for); the peak is the largest
of the four processes. With --folder, what was made there before is used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rows_scale import Figure, at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
SIDE = HERE / "_version_side.py"
MIB, GIGABYTE = 2**20, 1e9
SIZE, SHORT = 807, 160  # bytes a row
FEW = 2_000  # rows of the gap that the large one is held against
SPEC = """bases: {nano: {model: nano}}
datasets:
  asked: {path: data.jsonl, columns: {input: input, output: output}}
capabilities:
  topic: {data: asked, answer: choice, limit: LIMIT, goal: 0.9, prompts: {zero_shot: "ASKED"}}
train: {base: nano, budget_rows: 500}
"""


def side(step: str, *given: object) -> dict[str, Any]:
    """Run one step in a process of its own."""
    call = [sys.executable, str(SIDE), step, *map(str, given)]
    printed = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def spec(folder: Path, *, limit: int, asked: str) -> None:
    """Write the spec, with a prompt."""
    text = SPEC.replace("LIMIT", str(limit)).replace("ASKED", asked)
    (folder / "gapmend.yaml").write_text(text)


def made(folder: Path, rows: int, size: int) -> dict[str, Any] | None:
    """Write a workspace's rows and ingest them; None where that was done before."""
    if (folder / ".gapmend").is_dir():
        return None
    folder.mkdir(parents=True)
    side("write", folder / "data.jsonl", rows, size)
    spec(folder, limit=50, asked="{input}")
    return side("ingest", folder)


def gaps(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure the base by a prompt of its own each time."""
    found = []
    before = len(list((folder / ".gapmend" / "objects" / "gap").glob("*")))
    for number in range(before, before + repeats):
        spec(folder, limit=50, asked=f"Topic {number}: {{input}}")
        found.append(side("gap", folder))
    return found


def median(turns: Sequence[dict[str, Any]], of: str) -> float:
    """Return the median of a figure."""
    return statistics.median(float(turn[of]) for turn in turns)


def gap(folder: Path, rows: int, repeats: int, targets: dict[str, float]) -> list[Figure]:
    """Measure gap on many rows beside the base alone, and beside gap on few."""
    large, small = folder / "large", folder / "small"
    made(large, rows, SIZE)
    made(small, FEW, SIZE)
    alone = [side("model", large) for _ in range(repeats)]
    many, few = gaps(large, repeats), gaps(small, repeats)
    memory = (median(many, "peak") - median(alone, "peak")) / MIB
    cpu = median(many, "cpu") - median(few, "cpu")
    return [
        at_most(f"gap, limit 50 of {rows:,} rows, CPU s", median(many, "cpu")),
        at_most(f"  the same of {FEW:,} rows", median(few, "cpu")),
        at_most("  the difference", cpu, targets["gap_cpu_seconds"]),
        at_most("gap, peak MiB", median(many, "peak") / MIB),
        at_most("  the base alone", median(alone, "peak") / MIB),
        at_most("  the difference", memory, targets["gap_mib"]),
    ]


def loop(folder: Path, rows: int, targets: dict[str, float]) -> list[Figure]:
    """Go from files to an adapter."""
    steps = {"ingest": made(folder, rows, SHORT)}
    spec(folder, limit=300, asked="{input}")
    for step in ("gap", "select", "train"):
        steps[step] = side(step, folder)
    took = {step: found for step, found in steps.items() if found is not None}
    figures = [at_most(f"{step}, {rows:,} rows, CPU s", took[step]["cpu"]) for step in took]
    figures += [at_most(f"{step}, peak GB", took[step]["peak"] / GIGABYTE) for step in took]
    peak = max(found["peak"] for found in took.values()) / GIGABYTE
    return [*figures, at_most("the loop, peak GB", peak, targets["loop_gigabytes"])]


def main() -> None:
    """Make what is asked, measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop", type=int, default=0, metavar="ROWS", help="10000000; 0: none")
    parser.add_argument("--folder", type=Path, help="make the rows here, or find them")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    targets = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["data"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        figures = gap(folder, given.rows, given.repeats, targets) if given.rows else []
        if given.loop:
            figures += loop(folder / "loop", given.loop, targets)
    for figure in figures:
        print(figure.line())
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
