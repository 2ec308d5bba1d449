"""One step of the benchmark of reading versions, in a process of its own; prints it as JSON.

    python benchmarks/_version_side.py write FILE ROWS BYTES     questions with one of 12 answers
    python benchmarks/_version_side.py model FOLDER              the workspace's base, loaded alone
    python benchmarks/_version_side.py ingest|gap|select|train FOLDER

CPU seconds are of the process from its start.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

AT_ONCE = 20_000
WORDS = 50_000
LABELS = (
    *("postage", "refunds", "returns", "invoice", "opening", "repairs"),
    *("pickup", "warranty", "discount", "account", "catalog", "complaint"),
)


def write(path: str, rows: str, size: str) -> dict[str, Any]:
    """Write rows of about so many bytes, a line each."""
    import numpy as np

    draw = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(
        ["".join(draw.choice(letters, draw.integers(2, 10))) for _ in range(WORDS)], object
    )
    mean = sum(map(len, words)) / WORDS + 1
    usual = round((int(size) - len('{"input": ".", "output": "postage"}\n')) / mean)
    with Path(path).open("w", encoding="utf-8") as file:
        for done in range(0, int(rows), AT_ONCE):
            lengths = draw.integers(usual // 2, usual * 3 // 2 + 1, min(AT_ONCE, int(rows) - done))
            said = words[draw.integers(0, WORDS, int(lengths.sum()))].tolist()
            answers = draw.integers(0, len(LABELS), len(lengths)).tolist()
            begin, lines = 0, []
            for length, answer in zip(lengths.tolist(), answers, strict=True):
                text = " ".join(said[begin : begin + length])
                lines.append(f'{{"input": "{text}.", "output": "{LABELS[answer]}"}}\n')
                begin += length
            file.writelines(lines)
    return {"bytes": Path(path).stat().st_size}


def model(folder: str) -> dict[str, Any]:
    """Load the base, and what scores with it."""
    from pipeline.workspace.workspace import OpenWorkspace

    OpenWorkspace.open(Path(folder)).models.engine("nano")
    return {}


def ingest(folder: str) -> dict[str, Any]:
    """Make the version."""
    from pipeline.ingest import ingest as make
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

    (made,) = make(OpenWorkspace.open(Path(folder)), Ui()).datasets
    return {"rows": made.facts["rows"], "splits": made.facts["splits"]}


def gap(folder: str) -> dict[str, Any]:
    """Measure the base."""
    from pipeline.gap import gap as find
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

    (found,) = find(OpenWorkspace.open(Path(folder)), Ui()).findings
    return {"verdict": found.verdict}


def select(folder: str) -> dict[str, Any]:
    """Choose rows."""
    from pipeline.select import select as choose
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

    found = choose(OpenWorkspace.open(Path(folder)), Ui())
    return {"rows": found.rows, "selection": found.selection_id}


def train(folder: str) -> dict[str, Any]:
    """Train on what was chosen, which is found and not chosen again."""
    from pipeline.select import select as choose
    from pipeline.train import train as make
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

    ws, ui = OpenWorkspace.open(Path(folder)), Ui()
    return {"adapter": make(ws, ui, choose(ws, ui).selection_id).adapter_id}


def main() -> None:
    """Do what the first argument names."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    began = time.perf_counter()
    steps = (write, model, ingest, gap, select, train)
    found = {step.__name__: step for step in steps}[sys.argv[1]](*sys.argv[2:])
    used = resource.getrusage(resource.RUSAGE_SELF)
    found |= {"cpu": used.ru_utime + used.ru_stime, "wall": time.perf_counter() - began}
    found["peak"] = used.ru_maxrss * 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
