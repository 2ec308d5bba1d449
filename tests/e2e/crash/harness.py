"""Kill a program at every kind of instant and see what it leaves.

The program may be any. `record` runs it once, on a scratch workspace, and lists the calls that can
be hit; `points` chooses among them; `run_killed` and `run_killed_at_time` end it there.

Programs run in forks of a process that has the libraries loaded, and SIGKILL ends those:

    argv = ["pipeline.cli.main:main", "ingest", "-C", folder]
    for point in points(record(argv), kills=10, seed=0): run_killed(argv, point)
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.called import fork
from tests.support.loaded import Loaded, light

LAUNCHER = Path(__file__).with_name("launcher.py")
LIMIT_S = 900


@dataclass(frozen=True)
class Call:
    """One call that can be hit: its kind, where it comes from, and which of its kind it is."""

    kind: str
    site: str
    nth: int


@dataclass(frozen=True)
class Point:
    """An instant to kill at."""

    call: Call
    when: str

    def __str__(self) -> str:
        return f"{self.call.kind}:{self.call.nth}:{self.when}"


@dataclass(frozen=True)
class Ended:
    """How a program ended; `code` is -9 when it was killed."""

    code: int
    lines: tuple[str, ...]
    errors: str


def record(argv: Sequence[str], *, cwd: Path | None = None, loaded: Loaded = light) -> list[Call]:
    """Run a program to its end and list the calls on its way."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "calls"
        done = fork(
            [str(LAUNCHER), "count", str(file), *argv], cwd=cwd, timeout=LIMIT_S, loaded=loaded
        )
        assert done.code == 0, done.err
        counts: dict[str, int] = defaultdict(int)
        calls = []
        for line in file.read_text().splitlines():
            kind, site = line.split("\t")
            counts[kind] += 1
            calls.append(Call(kind, site, counts[kind]))
        return calls


def points(calls: Sequence[Call], *, kills: int, seed: int) -> list[Point]:
    """Choose instants so that all sites get their turn before any gets another."""
    draw = random.Random(seed)
    by_site: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        by_site[call.kind, call.site].append(call)
    sites = [by_site[key] for key in sorted(by_site)]
    if kills < len(sites):  # with few kills, the kinds take turns instead
        draw.shuffle(sites)
        sites.sort(key=lambda found: found[0].kind)
        kinds = defaultdict(list)
        for found in sites:
            kinds[found[0].kind].append(found)
        turns = max(len(group) for group in kinds.values())
        sites = [
            group[turn] for turn in range(turns) for group in kinds.values() if turn < len(group)
        ]
    chosen = []
    for position in range(kills):
        lap, site = divmod(position, len(sites))
        when = ("before", "after")[(lap + site) % 2]
        chosen.append(Point(draw.choice(sites[site]), when))
    return chosen


def run_killed(
    argv: Sequence[str], point: Point, *, cwd: Path | None = None, loaded: Loaded = light
) -> Ended:
    """Run a program that is killed at a point (or ends before it comes there)."""
    done = fork([str(LAUNCHER), "kill", str(point), *argv], cwd=cwd, timeout=LIMIT_S, loaded=loaded)
    return Ended(done.code, tuple(done.out.splitlines()), done.err)


def run_killed_at_time(
    argv: Sequence[str],
    *,
    mark: str,
    seconds: float,
    cwd: Path | None = None,
    loaded: Loaded = light,
) -> Ended:
    """Run a program and kill it so many seconds after it has printed `mark`."""
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    child = loaded.start(argv, stdout=to_out, stderr=to_err, cwd=cwd)
    for ours in (to_out, to_err):
        os.close(ours)
    lines: list[str] = []
    errors: list[str] = []
    marked = threading.Event()

    def drain(number: int, kept: list[str]) -> None:
        with open(number, encoding="utf-8") as stream:
            for line in stream:
                kept.append(line.rstrip("\n"))
                if mark in line:
                    marked.set()

    pairs = ((out, lines), (err, errors))
    readers = [threading.Thread(target=drain, args=pair) for pair in pairs]
    for reader in readers:
        reader.start()
    while not marked.wait(0.05) and child.poll() is None:
        pass
    assert marked.is_set(), f"never printed {mark!r}: {errors}"
    time.sleep(seconds)
    child.kill()
    for reader in readers:
        reader.join()
    return Ended(child.wait(), tuple(lines), "\n".join(errors))
