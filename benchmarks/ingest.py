"""Ingest beside Hugging Face datasets, an append beside DVC, and near-duplicate clusters.

    python benchmarks/ingest.py [--rows 2000000] [--repeats 5] [--texts 1000000]
                                [--dvc PATH] [--folder DIR] [--json FILE]

Rows are sharegpt conversations of one or two exchanges, about 800 bytes, in JSON lines: words by
Zipf's law, line breaks and quotes in a third of the texts, some letters beyond ASCII. Both sides
read the same two files, in turns, each in a fresh process; CPU seconds are of all its processes,
start and imports among them. `datasets` maps in batches with two processes, which is its quickest
way (one row at a time takes half as much again). Of ours, near-duplicate clusters are timed apart.
The append adds a third file with 1% of the rows to the folder. DVC (its program: --dvc) adds the
same folder. Medians of the turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
SIDE = HERE / "_ingest_side.py"
GIGABYTE = 1e9
SHARE = 0.01
AT_ONCE = 10_000
WORDS = 20_000
SPEC = """\
bases: {nano: {model: nano}}
datasets:
  chat: {path: data, format: sharegpt}
capabilities: {c: {data: chat, answer: exact, goal: 0.8}}
train: {base: nano}
"""


@dataclass(frozen=True)
class Figure:
    """One metric: what was measured, and the target, at least or at most; None: only told."""

    metric: str
    value: float
    target: float | None = None
    at_most: bool = True

    @property
    def holds(self) -> bool | None:
        """Whether the target is reached."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self) -> str:
        """Return it as a line of the table."""
        sign = "<=" if self.at_most else ">="
        wanted = "" if self.target is None else f"{sign}{self.target:g}"
        said = {None: "", True: "holds", False: "missed"}[self.holds]
        return f"{self.metric:<48}{self.value:>9.3f}{wanted:>9}  {said}".rstrip()


def write_rows(path: Path, rows: int, seed: int) -> None:
    """Write conversations."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(
        ["".join(draw.choice(letters, draw.integers(2, 10))) for _ in range(WORDS)], object
    )
    shares = 1 / np.arange(1, WORDS + 1) ** 0.9
    shares /= shares.sum()
    with path.open("w", encoding="utf-8") as file:
        for done in range(0, rows, AT_ONCE):
            turns = draw.choice([2, 2, 4], min(AT_ONCE, rows - done))
            lengths = draw.integers(5, 75, int(turns.sum()))
            drawn = words[draw.choice(WORDS, int(lengths.sum()), p=shares)]
            texts = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
            said = iter([_dressed(text, number) for number, text in enumerate(texts)])
            for count in turns.tolist():
                talk = [
                    {"from": ("human", "gpt")[n % 2], "value": next(said)} for n in range(count)
                ]
                file.write(json.dumps({"conversations": talk}, ensure_ascii=False) + "\n")


def _dressed(text: str, number: int) -> str:
    if number % 7 == 0:
        text = text.replace(" ", "\n", 2)
    if number % 5 == 0:
        text = f'He said: "{text}"'
    return f"{text} \u00e9 \u4f60\u597d." if number % 11 == 0 else f"{text}."


def side(*given: object) -> dict[str, Any]:
    """Run a side to its end."""
    call = [sys.executable, str(SIDE), *map(str, given)]
    printed = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def median(turns: Sequence[dict[str, Any]], *without: str, of: str) -> float:
    """Return the median of a figure, less others of the same turn."""
    return statistics.median(turn[of] - sum(turn[name] for name in without) for turn in turns)


@dataclass(frozen=True)
class Race:
    """Where rows are, and the targets."""

    folder: Path
    rows: int
    repeats: int
    targets: dict[str, float]

    @property
    def data(self) -> Path:
        """The dataset's folder."""
        return self.folder / "data"

    def make(self) -> None:
        """Write the files, the third beside the folder that it is appended to."""
        self.data.mkdir(parents=True)
        for number in range(2):
            write_rows(self.data / f"{number}.jsonl", self.rows // 2, number)
        write_rows(self.folder / "2.jsonl", int(self.rows * SHARE), 2)
        (self.folder / "gapmend.yaml").write_text(SPEC)

    def ingest(self) -> list[Figure]:
        """Ingest by both sides in turns, and append."""
        first, again, theirs = [], [], []
        out = self.folder / "out"
        for _ in range(self.repeats):
            shutil.rmtree(self.folder / ".gapmend", ignore_errors=True)
            first.append(side("ours", self.folder))
            out.mkdir()
            theirs.append(side("datasets", out, *sorted(self.data.iterdir())))
            shutil.rmtree(out)
            shutil.copy(self.folder / "2.jsonl", self.data)
            again.append(side("ours", self.folder))
            (self.data / "2.jsonl").unlink()
        assert {turn["rows"] for turn in theirs} == {self.rows}
        mine, peer = median(first, "apart", of="cpu"), median(theirs, of="cpu")
        later = median(again, "apart", of="cpu")
        peak = max(turn["peak"] for turn in (*first, *again)) / GIGABYTE
        size = sum(path.stat().st_size for path in self.data.iterdir()) / self.rows
        return [
            Figure(f"rows of {size:.0f} bytes", self.rows),
            Figure("ours, CPU microseconds a row", mine / self.rows * 1e6),
            Figure("  near-duplicate clusters, apart", median(first, of="apart") / self.rows * 1e6),
            Figure("datasets, CPU microseconds a row", peer / self.rows * 1e6),
            Figure("datasets / ours", peer / mine, self.targets["ingest"], at_most=False),
            Figure("peak memory, GB", peak, self.targets["ingest_gigabytes"]),
            Figure("append of 1%, CPU s", later),
            Figure("append / first", later / mine, self.targets["append_share"]),
            Figure("append, wall s without clusters", median(again, "apart_wall", of="wall")),
            Figure("append, wall s", median(again, of="wall")),
        ]

    def dvc(self, program: Path, ours_wall: float) -> list[Figure]:
        """Add the same folder by DVC, append, and add it again."""
        took = []
        for _ in range(self.repeats):
            with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
                where = Path(temporary)
                shutil.copytree(self.data, where / "data")
                for call in (
                    ["git", "init", "-q"],
                    [program, "init", "-q"],
                    [program, "add", "data"],
                ):
                    subprocess.run(call, cwd=where, check=True, capture_output=True)
                shutil.copy(self.folder / "2.jsonl", where / "data")
                began = time.perf_counter()
                subprocess.run([program, "add", "data"], cwd=where, check=True, capture_output=True)
                took.append(time.perf_counter() - began)
        peer = statistics.median(took)
        return [
            Figure("dvc add after the append, wall s", peer),
            Figure("append, ours / dvc", ours_wall / peer, self.targets["append_dvc"]),
        ]


def clusters(texts: int, targets: dict[str, float]) -> list[Figure]:
    """Find near-duplicates."""
    found = side("clusters", texts)
    return [
        Figure(f"clusters of {texts:,} texts, s", found["apart_wall"], targets["clusters_seconds"]),
        Figure("  peak memory, GB", found["peak"] / GIGABYTE, targets["clusters_gigabytes"]),
    ]


def main() -> None:
    """Make what is asked, measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--texts", type=int, default=1_000_000, help="of the clusters; 0: none")
    parser.add_argument("--dvc", type=Path, help="its program, in an environment of its own")
    parser.add_argument("--folder", type=Path, help="make the rows here, or find them")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    targets = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["data"]
    with tempfile.TemporaryDirectory() as temporary:
        race = Race(given.folder or Path(temporary), given.rows, given.repeats, targets)
        if not race.data.is_dir():
            race.make()
        figures = race.ingest()
        if given.dvc:
            figures += race.dvc(given.dvc.absolute(), figures[-1].value)
        if given.texts:
            figures += clusters(given.texts, targets)
    for figure in figures:
        print(figure.line())
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
