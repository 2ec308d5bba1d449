"""One side of the ingest benchmark, in a process of its own; prints what it took as JSON.

    python benchmarks/_ingest_side.py ours FOLDER             a workspace, ingested
    python benchmarks/_ingest_side.py datasets OUT FILE...    Hugging Face datasets, to Parquet
    python benchmarks/_ingest_side.py clusters ROWS           near-duplicates of so many texts

CPU seconds are of the process and its children, from its start; `apart` are those of clusters.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
PROCESSES = 2


def cpu_seconds() -> float:
    """Return what this process and those that it waited for have taken."""
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in found)


def ours(folder: str) -> dict[str, Any]:
    """Ingest the one dataset of a workspace; clusters are timed apart."""
    from pipeline.ingest import ingest
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.duplicates import near_duplicates as duplicates
    from registry.datasets.versions import make as new_version

    real, apart = duplicates.clusters, [0.0, 0.0]

    def timed(texts: Sequence[str], path: Path) -> Any:
        began = cpu_seconds(), time.perf_counter()
        found = real(texts, path)
        apart[:] = cpu_seconds() - began[0], time.perf_counter() - began[1]
        return found

    new_version.clusters = timed
    (made,) = ingest(OpenWorkspace.open(Path(folder)), Ui()).datasets
    return {"rows": made.facts["rows"], "apart": apart[0], "apart_wall": apart[1]}


def to_messages(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return conversations as OpenAI's messages, a batch at a time, which is the quicker way."""
    return {
        "messages": [
            [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in turns]
            for turns in batch["conversations"]
        ]
    }


def hugging_face(out: str, *files: str) -> dict[str, Any]:
    """Load, map and write as `datasets` does it with two processes."""
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset(
        "json", data_files=list(files), split="train", cache_dir=f"{out}/cache", num_proc=PROCESSES
    )
    rows = rows.map(to_messages, batched=True, num_proc=PROCESSES, remove_columns=["conversations"])
    rows.to_parquet(f"{out}/rows.parquet")
    return {"rows": len(rows)}


def near(rows: str) -> dict[str, Any]:
    """Find the near-duplicates of texts of 5 to 45 words, a tenth of them near another."""
    from registry.datasets.duplicates.near_duplicates import clusters

    draw = random.Random(0)
    words = [f"{draw.randrange(36**5):x}" for _ in range(20_000)]
    texts: list[str] = []
    for number in range(int(rows)):
        said = draw.choices(words, k=draw.randint(5, 45))
        if number % 10 == 9:  # noqa: PLR2004 - a tenth
            said = [*draw.choice(texts).split(), draw.choice(words)]
        texts.append(" ".join(said))
    began = time.perf_counter()
    found = len(set(clusters(texts)))
    return {"rows": len(texts), "clusters": found, "apart_wall": time.perf_counter() - began}


def main() -> None:
    """Do what the first argument names."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    began = time.perf_counter()
    sides = {"ours": ours, "datasets": hugging_face, "clusters": near}
    found = sides[sys.argv[1]](*sys.argv[2:])
    found |= {"cpu": cpu_seconds(), "wall": time.perf_counter() - began}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
