"""How fast LoRA training is on a GPU, beside TRL, on models of real shapes with random weights.

    python benchmarks/gpu_train.py [OUT] [--shapes qwen3-0.6b llama-3-8b] [--wheels FOLDER]
                                   [--device cuda] [--steps 12] [--seconds 75]

For a machine that has torch, transformers and PEFT of its own and nothing else of this project's
environment: nothing here imports duckdb or lm-eval. What else is missing (pydantic; TRL with
datasets) is taken from the wheels in FOLDER, which are unpacked, not installed.

Weights are drawn on the device, in bf16; rows are random token ids with lengths spread like
instruction data, packed to 4,096 tokens a batch; LoRA of rank 16 on all linear layers, AdamW. TRL
packs by bfd and attends with flash-attn where that is installed, else with sdpa. Each (shape, side)
is a process of its own under a time limit, which adds a line to OUT/steps.jsonl after every step,
so that what was measured outlives it. One that is out of memory starts again with activation
checkpointing, which its lines say. OUT/summary.json has the medians.

`--device cpu --shapes tiny` tries the program itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import _gpu_side

SIDES = ("rate", "ours", "trl")
OUT_OF_MEMORY = 3


def main() -> None:
    """Measure every side on every shape, print the table and write the summary."""
    given = arguments()
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing is measured")
        return
    given.out.mkdir(parents=True, exist_ok=True)
    steps = given.out / "steps.jsonl"
    steps.unlink(missing_ok=True)
    for shape in given.shapes:
        for side in SIDES:
            code = run(given, shape, side, steps)
            if code == OUT_OF_MEMORY:
                run(given, shape, side, steps, "--checkpointing")
    lines = [json.loads(line) for line in steps.read_text("utf-8").splitlines()]
    summary = [one for shape in given.shapes for one in summarised(shape, lines)]
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")


def run(given: argparse.Namespace, shape: str, side: str, steps: Path, *more: str) -> int:
    """Let one process measure; its end, if not 0, is said."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("_gpu_side.py")),
        *(shape, side, str(steps), "--device", given.device, "--steps", str(given.steps)),
        *(("--wheels", str(given.wheels)) if given.wheels else ()),
        *more,
    ]
    try:
        code = subprocess.run(command, timeout=given.seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"{shape} {side}: stopped after {given.seconds} s", flush=True)
        return 0
    if code:
        print(f"{shape} {side}: ended with {code}", flush=True)
    return code


def summarised(shape: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return and print a shape's medians, one for each side that has steps."""
    mine = [line for line in lines if line["shape"] == shape]
    rate = next((line["rate"] for line in mine if line["side"] == "rate"), None)
    found = []
    for side in SIDES[1:]:
        # The first ones load kernels and fill the allocator's cache.
        steps = [line for line in mine if line["side"] == side][_gpu_side.WARM_UP :]
        if not steps:
            print(f"{shape:<14}{side:<6}not measured", flush=True)
            continue
        speed = statistics.median(line["tokens"] / line["seconds"] for line in steps)
        flops = statistics.median(line["flops"] / line["seconds"] for line in steps)
        last = steps[-1]
        found.append(
            {
                "shape": shape,
                "side": side,
                "device": last["device"],
                "steps": len(steps),
                "tokens_per_second": speed,
                "flops_per_second": flops,
                "matmul_flops_per_second": rate,
                "matmul_share": flops / rate if rate else None,
                "peak_gib": last["peak_gib"],
                "loss": last["loss"],
                "attention": last["attention"],
                "checkpointing": last["checkpointing"],
                "note": last.get("note", ""),
            }
        )
        share = f"{flops / rate:.1%}" if rate else "-"
        print(
            f"{shape:<14}{side:<6}{speed:>9.0f} tokens/s  {share} of the matmul rate  "
            f"peak {last['peak_gib']} GiB  {last['attention']}"
            f"{', activation checkpointing' if last['checkpointing'] else ''}"
            f"{', ' + last['note'] if last.get('note') else ''}",
            flush=True,
        )
    return found


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out", type=Path, nargs="?", default=Path("build/gpu"), help="folder of the results"
    )
    parser.add_argument("--shapes", nargs="+", choices=_gpu_side.SHAPES, default=_gpu_side.REAL)
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to be used unpacked")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=12, help="measured, beside the first ones")
    parser.add_argument("--seconds", type=int, default=75, help="limit of each process")
    return parser.parse_args()


if __name__ == "__main__":
    main()
