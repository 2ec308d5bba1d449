"""Reading files to hashed rows: what a row of each format takes, beside another checkout.

    python benchmarks/reading.py [--rows 200000] [--repeats 5] [--beside CHECKOUT]
                                 [--folder DIR] [--json FILE]

The rows are those of benchmarks/ingest.py, about 800 bytes each, written as sharegpt, messages,
alpaca and two columns in JSON lines, and as two columns in CSV and Parquet. Every reading is a
fresh process, which reads the first rows before; CPU seconds are of the reading alone. `--beside`
reads the same files with the code of another checkout, in turns, and checks that the rows' hashes
are the same. Medians of the turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ingest import Figure, write_rows

HERE = Path(__file__).parent
SIDE = HERE / "_reading_side.py"
ROLES = {"human": "user", "gpt": "assistant"}
FILES = {
    "sharegpt": ("sharegpt.jsonl", "sharegpt"),
    "messages": ("messages.jsonl", "messages"),
    "alpaca": ("alpaca.jsonl", "alpaca"),
    "columns": ("columns.jsonl", "columns"),
    "csv": ("columns.csv", "columns"),
    "parquet": ("columns.parquet", "columns"),
}


def write_files(folder: Path, rows: int) -> None:
    """Write the same rows in every format."""
    folder.mkdir(parents=True)
    write_rows(folder / "sharegpt.jsonl", rows, 0)
    with (folder / "sharegpt.jsonl").open(encoding="utf-8") as file:
        talks = [json.loads(line)["conversations"] for line in file]
    messages = [
        {"messages": [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in talk]}
        for talk in talks
    ]
    pairs = [(talk[0]["value"], " ".join(turn["value"] for turn in talk[1:])) for talk in talks]
    columns = [{"input": asked, "output": answer} for asked, answer in pairs]
    alpaca = [{"instruction": asked, "input": "", "output": answer} for asked, answer in pairs]
    for name, records in (("messages", messages), ("alpaca", alpaca), ("columns", columns)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    with (folder / "columns.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("input", "output"), *pairs])
    pq.write_table(pa.Table.from_pylist(columns), folder / "columns.parquet")


def read(checkout: Path, folder: Path, name: str) -> dict[str, Any]:
    """Read a file with the code of a checkout."""
    file, form = FILES[name]
    printed = subprocess.run(
        [sys.executable, "-P", str(SIDE), str(folder / file), form],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


def main() -> None:
    """Write the files, read them in turns, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="another checkout, for the same files")
    parser.add_argument("--folder", type=Path, help="write the files here, or find them")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    targets = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["reading"]
    sides = {"ours": HERE.parent} | ({"beside": given.beside.absolute()} if given.beside else {})
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "files"
        if not folder.is_dir():
            write_files(folder, given.rows)
        for name in FILES:
            turns = [
                {side: read(path, folder, name) for side, path in sides.items()}
                for _ in range(given.repeats)
            ]
            assert len({one["hashes"] for turn in turns for one in turn.values()}) == 1
            for side in sides:
                took = statistics.median(turn[side]["cpu"] / turn[side]["rows"] for turn in turns)
                target = targets[name] if side == "ours" else None
                figures.append(Figure(f"{name}, {side}, microseconds a row", took * 1e6, target))
    for figure in figures:
        print(figure.line())
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
