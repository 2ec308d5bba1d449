"""How long the command line takes to answer, beside lm-eval's.

    python benchmarks/start.py [--json FILE]

Wall-clock seconds of a whole process, medians of 5, the programs in turn so that a change of the
machine's speed meets both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
RUNS = 5
OURS = "gapmend --help"
PEER = "lm-eval --help"


def seconds(command: str) -> float:
    """Return the wall-clock seconds of one call."""
    program, *arguments = command.split()
    began = time.perf_counter()
    subprocess.run(
        [Path(sys.executable).parent / program, *arguments], capture_output=True, check=True
    )
    return time.perf_counter() - began


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    target = tomllib.loads((HERE / "targets.toml").read_text())["start"]["help_seconds"]
    for command in (OURS, PEER):
        seconds(command)  # warms the file cache
    taken: dict[str, list[float]] = {OURS: [], PEER: []}
    for _ in range(RUNS):
        for command, times in taken.items():
            times.append(seconds(command))
    ours, peer = (statistics.median(times) for times in taken.values())
    figures = [
        {
            "metric": "help, seconds",
            "ours": round(ours, 3),
            "peer": round(peer, 3),
            "ratio": round(peer / ours, 2),
            "target": target,
            "holds": ours <= target,
        }
    ]
    print(f"{'metric':<16}{'ours':>8}{'peer':>8}{'ratio':>8}{'target':>8}  holds")
    for one in figures:
        print(
            f"{one['metric']:<16}{one['ours']:>8}{one['peer']:>8}{one['ratio']:>8}"
            f"{one['target']:>8}  {one['holds']}"
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
