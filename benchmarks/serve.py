"""How much quicker 32 requests are at once than one after the other, and than `transformers serve`.

    python benchmarks/serve.py [--repeats 3] [--tokens 64] [--peer PYTHON] [--json FILE]

Servers on nano in their own processes with one thread, OpenAI's client, greedy texts; wall-clock
seconds in turns, medians, and the CPU seconds of the servers beside them. The answers have to be
the same, or it is no comparison. The peer is transformers' own server at its best setting,
continuous batching with a cache of a given size (without, it takes most of the memory), in a Python
that has fastapi beside what gapmend needs; without one it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
MANY = 32
OURS, PEER = "gapmend serve", "transformers serve"
PORTS = {OURS: 8971, PEER: 8972}
# A block for each request and some more: with 256 of them it takes twice the memory and is slower.
BATCHED = ("--continuous-batching", "--cb-num-blocks", "40", "--cb-max-batch-tokens", "512")
SPEC = """
bases: {nano: {model: nano, dtype: fp32}}
datasets: {none: {path: none.jsonl, columns: {input: a, output: b}}}
capabilities: {none: {data: none, answer: exact, goal: 0.9}}
train: {base: nano, pool: [none]}
"""
HEAD = f"{'metric':<42}{'ours':>9}{'peer':>9}{'ratio':>8}{'target':>8}"


@dataclass(frozen=True)
class Took:
    """What some requests took: wall-clock and CPU seconds, the server's most memory, answers."""

    seconds: float
    cpu: float
    memory: float
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One metric: seconds of both sides, and at least which ratio; without a target only told."""

    metric: str
    ours: float
    peer: float
    target: float | None

    def as_json(self) -> dict[str, object]:
        """Return it as every benchmark writes one."""
        ratio = self.peer / self.ours
        holds = None if self.target is None else ratio >= self.target
        return {**vars(self), "ratio": round(ratio, 2), "holds": holds}

    def line(self) -> str:
        """Return it as a line of the table."""
        ratio = self.peer / self.ours
        target, said = "-", ""
        if self.target is not None:
            target, said = f"{self.target:g}", "holds" if ratio >= self.target else "missed"
        sides = f"{self.ours:>9.2f}{self.peer:>9.2f}"
        return f"{self.metric:<42}{sides}{ratio:>8.2f}{target:>8}  {said}".rstrip()


@dataclass(frozen=True)
class Server:
    """A server that runs, and the model's name there."""

    process: psutil.Process
    client: openai.OpenAI
    model: str
    tokens: int

    def ask(self, number: int) -> str:
        """Return the text that the model goes on with."""
        made = self.client.completions.create(
            model=self.model,
            prompt=f"On day {number} the red",
            temperature=0,
            max_tokens=self.tokens,
        )
        return made.choices[0].text

    def many(self, *, at_once: bool) -> Took:
        """Ask all, one after the other or at once."""
        began, before = time.perf_counter(), self._cpu()
        if at_once:
            with ThreadPoolExecutor(MANY) as pool:
                answers = tuple(pool.map(self.ask, range(MANY)))
        else:
            answers = tuple(self.ask(number) for number in range(MANY))
        seconds, cpu = time.perf_counter() - began, self._cpu() - before
        return Took(seconds, cpu, self._memory(), answers)

    def _cpu(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def _memory(self) -> float:
        """The most that it has held so far, in GB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


@contextmanager
def running(name: str, command: list[str], model: str, tokens: int) -> Iterator[Server]:
    """Run a server until it has answered once, and then for the body."""
    told = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    address = f"http://127.0.0.1:{PORTS[name]}/v1"
    client = openai.OpenAI(base_url=address, api_key="none", timeout=600, max_retries=0)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **told}
        )
        try:
            server = Server(psutil.Process(process.pid), client, model, tokens)
            while True:
                try:
                    server.ask(0)
                    break
                except openai.APIConnectionError:
                    if process.poll() is not None:
                        said.seek(0)
                        sys.exit(f"{name} has ended: {said.read()[-2000:]}")
                    time.sleep(0.5)
            yield server
        finally:
            process.terminate()
            process.wait(60)


def commands(root: Path, peer: Path | None) -> dict[str, tuple[list[str], str]]:
    """Return each server's command and what it calls nano."""
    from registry.models.base import nano_folder

    (root / "gapmend.yaml").write_text(SPEC)
    start = "from pipeline.cli.start import main; main()"
    ours = [sys.executable, "-c", start, "serve", "-C", str(root), "--port", str(PORTS[OURS])]
    found = {OURS: (ours, "nano")}
    if peer is not None:
        folder = str(nano_folder())
        serve = [str(peer), "-m", "transformers.cli.transformers", "serve", folder, *BATCHED]
        serve += ["--port", str(PORTS[PEER]), "--device", "cpu", "--dtype", "float32"]
        found[PEER] = (serve, folder)
    return found


def measured(given: argparse.Namespace) -> dict[tuple[str, bool], list[Took]]:
    """Return what each way took, by server and whether at once.

    Raises:
        SystemExit: the answers differ, so that the times compare nothing.
    """
    taken: dict[tuple[str, bool], list[Took]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # One server at a time: whatever the idle one does takes nothing from the other.
        for _ in range(given.repeats):
            for name, (command, model) in commands(Path(folder), given.peer).items():
                with running(name, command, model, given.tokens) as server:
                    for at_once in (False, True):
                        taken.setdefault((name, at_once), []).append(server.many(at_once=at_once))
    answers = {took.answers for some in taken.values() for took in some}
    if len(answers) != 1:
        sys.exit("the answers differ, so that the times compare nothing")
    return taken


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="at most, of each answer")
    parser.add_argument("--peer", type=Path, help="a Python with transformers and fastapi")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    target = tomllib.loads((HERE / "targets.toml").read_text())["serve"]["parallel"]
    taken = measured(given)

    def median(name: str, part: str, *, at_once: bool) -> float:
        return statistics.median(getattr(took, part) for took in taken[name, at_once])

    figures = []
    for part, unit, wanted in (("seconds", "s", target), ("cpu", "CPU s", None)):
        once = median(OURS, part, at_once=True)
        alone = median(OURS, part, at_once=False)
        figures.append(Figure(f"{MANY} at once / one by one, {unit}", once, alone, wanted))
        if given.peer is not None:
            theirs, each = (median(PEER, part, at_once=way) for way in (True, False))
            figures.append(Figure(f"{MANY} at once, {PEER}, {unit}", once, theirs, None))
            figures.append(Figure(f"one by one, {PEER}, {unit}", alone, each, None))
    if given.peer is not None:
        held, theirs = (median(name, "memory", at_once=True) for name in (OURS, PEER))
        figures.append(Figure(f"most memory, {PEER}, GB", held, theirs, None))
    print(HEAD)
    for figure in figures:
        print(figure.line())
    if given.json:
        given.json.write_text(json.dumps([one.as_json() for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
