"""Peak memory of generation, each side in a fresh process of its own.

    python benchmarks/_memory.py ours|lm-eval ITEMS THREADS BATCH_SIZE

As a program it is one such process: it loads nano, generates, and prints what it took as JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _shared import Figure, cases

if TYPE_CHECKING:
    from collections.abc import Callable

CASE = "generation"
SIDES = ("ours", "lm-eval")
MIB = 2**20
# A program's high-water mark begins at that of the process it replaces, which is a copy of ours:
# through a shell that stays, it begins at the shell's.
_AFRESH = ["sh", "-c", '"$0" "$@"; exit $?']


def measure(items: int, threads: int, batch_size: int, repeats: int, target: float) -> Figure:
    """Return the peak of both sides, medians, in MiB.

    Raises:
        SystemExit: they don't write the same.
    """
    peaks: dict[str, list[float]] = {side: [] for side in SIDES}
    before: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        found = {side: _in_fresh_process(side, items, threads, batch_size) for side in SIDES}
        if found["ours"]["answers"] != found["lm-eval"]["answers"]:
            sys.exit("generation: the answers differ, so that the memory compares nothing")
        for side in SIDES:
            peaks[side].append(found[side]["peak"] / MIB)
            before[side].append(found[side]["before"] / MIB)
    ours, peer = (statistics.median(peaks[side]) for side in SIDES)
    held = [statistics.median(before[side]) for side in SIDES]
    note = f"resident before generation began: ours {held[0]:.0f}, lm-eval {held[1]:.0f} MiB"
    return Figure.beside("generation_peak_memory", "MiB", (ours, peer), batch_size, target, note)


def _in_fresh_process(side: str, *numbers: int) -> dict[str, Any]:
    command = [*_AFRESH, sys.executable, __file__, side, *map(str, numbers)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{side}: {ran.stderr}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Generate as one side, and print what it took."""
    side, *numbers = sys.argv[1:]
    items, threads, batch_size = map(int, numbers)

    import psutil
    import torch

    torch.set_num_threads(threads)
    requests = cases(items)[CASE].requests
    generate = _ours() if side == "ours" else _theirs(batch_size)
    before = psutil.Process().memory_info().rss
    answers = generate(requests)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux gives KiB
    print(json.dumps({"before": before, "peak": peak, "answers": answers}))


def _ours() -> Callable[[Any], list[str]]:
    from evals.engine.packed import PackedLM
    from registry.models.base import BaseSpec
    from registry.models.load import load_model

    return PackedLM(load_model("nano", BaseSpec(model="nano"), Path.cwd())).generate_until


def _theirs(batch_size: int) -> Callable[[Any], list[str]]:
    from lm_eval.models.huggingface import HFLM

    from registry.models.base import nano_folder

    folder = str(nano_folder())
    peer = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=batch_size)
    return lambda requests: list(peer.generate_until(requests, disable_tqdm=True))


if __name__ == "__main__":
    main()
