"""How much CPU scoring takes, beside lm-eval's own Hugging Face backend.

    python benchmarks/scoring.py [--items 500] [--repeats 5] [--threads 1] [--json FILE]

Same model (nano), items, threads and precision, in one process, in turns; CPU seconds, medians.
The peer runs at its best batch size, found for each case before anything is counted. Every case
also compares the results: log-likelihoods within 1e-4 and the same answers, or it is no comparison.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from registry.models import LoadedModel

HERE = Path(__file__).parent
DATA = HERE.parent / "examples" / "quickstart" / "data"
BATCH_SIZES = (4, 16, 64)
CLOSE = 1e-4
SHOTS = 5
NEW_TOKENS = 64


@dataclass(frozen=True)
class Case:
    """One kind of work: its requests, how they are asked, and the key of its target."""

    name: str
    kind: str
    requests: list[Instance]


@dataclass(frozen=True)
class Figure:
    """CPU seconds of either side, medians, and the ratio beside what it must reach."""

    case: str
    ours: float
    peer: float
    batch_size: int
    ratio: float
    target: float
    holds: bool


def read(name: str, split: str) -> list[dict[str, str]]:
    """Return rows of the quickstart."""
    lines = (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def prompt(row: dict[str, str], shots: Sequence[dict[str, str]]) -> str:
    """Return a question behind solved ones, in nano's template."""
    turns = [f"<|user|>{s['input']}<|end|><|assistant|>{s['output']}<|end|>" for s in shots]
    return "".join(turns) + f"<|user|>{row['input']}<|end|><|assistant|>"


def cases(items: int) -> list[Case]:
    """Return the work: choices without examples, with shared and with own ones, and writing."""
    from lm_eval.api.instance import Instance

    rng = random.Random(0)
    asked, pool = read("intent", "dev")[:items], read("intent", "train")
    labels = sorted({row["output"] for row in pool})
    words = ["yes", "no", "red", "day"]
    shared = pool[:SHOTS]

    def choices(shots: Callable[[], Sequence[dict[str, str]]], answers: Any) -> list[Instance]:
        made = []
        for row in asked:
            context, given = prompt(row, shots()), answers()
            made += [
                Instance("loglikelihood", {}, (context, answer), i, ("bench", 0, 1))
                for i, answer in enumerate(given)
            ]
        return made

    def four() -> list[str]:
        return [f"{label}<|end|>" for label in rng.sample(labels, 4)]

    stop = {"until": ["<|end|>"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
    written = [
        Instance("generate_until", {}, (f"<|user|>Repeat: {text}<|end|><|assistant|>", stop), 0)
        for row in asked
        for text in [" ".join(row["input"].split()[: rng.randint(1, 12)])]
    ]
    return [
        Case("choice_0_shot", "loglikelihood", choices(list, four)),
        Case("choice_5_shot_shared", "loglikelihood", choices(lambda: shared, four)),
        Case("choice_5_shot_own", "loglikelihood", choices(lambda: rng.sample(pool, SHOTS), four)),
        Case("one_token_5_shot", "loglikelihood", choices(lambda: shared, lambda: words)),
        Case("generation", "generate_until", written),
    ]


def ours(loaded: LoadedModel, case: Case) -> tuple[float, list[Any]]:
    """Return CPU seconds and results of a fresh engine over the loaded model."""
    from evals.engine import PackedLM

    began = time.process_time()
    results = getattr(PackedLM(loaded), case.kind)(case.requests)
    return time.process_time() - began, results


def theirs(peer: HFLM, case: Case, batch_size: int) -> tuple[float, list[Any]]:
    """Return CPU seconds and results of lm-eval's backend at a batch size."""
    peer.batch_size_per_gpu = batch_size
    began = time.process_time()
    results = getattr(peer, case.kind)(case.requests, disable_tqdm=True)
    return time.process_time() - began, results


def agree(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether both sides found the same."""
    if isinstance(one[0], str):
        return list(one) == list(other)
    return all(abs(a[0] - b[0]) < CLOSE for a, b in zip(one, other, strict=True))


def measure(loaded: LoadedModel, peer: HFLM, case: Case, repeats: int, target: float) -> Figure:
    """Run both sides in turns.

    Raises:
        SystemExit: they don't agree, so that there is nothing to compare.
    """
    best = min(BATCH_SIZES, key=lambda size: theirs(peer, case, size)[0])
    mine: list[float] = []
    other: list[float] = []
    for _ in range(repeats):
        seconds, found = ours(loaded, case)
        mine.append(seconds)
        seconds, expected = theirs(peer, case, best)
        other.append(seconds)
        if not agree(found, expected):
            sys.exit(f"{case.name}: the results differ, so that the times compare nothing")
    quick, slow = statistics.median(mine), statistics.median(other)
    ratio = slow / quick
    return Figure(case.name, quick, slow, best, ratio, target, ratio >= target)


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()

    import torch
    from lm_eval.models.huggingface import HFLM

    from registry.identity import BaseSpec, nano_folder
    from registry.models import load_model

    torch.set_num_threads(given.threads)
    targets = tomllib.loads((HERE / "targets.toml").read_text())["evals"]
    loaded = load_model("nano", BaseSpec(model="nano"), Path.cwd())
    peer = HFLM(pretrained=str(nano_folder()), dtype="float32", device="cpu", batch_size=16)
    print(f"{given.items} items, {given.threads} threads, medians of {given.repeats}, CPU seconds")
    print(f"{'case':<24}{'ours':>8}{'lm-eval':>9}{'batch':>7}{'ratio':>8}{'target':>8}")
    figures = []
    for case in cases(given.items):
        one = measure(loaded, peer, case, given.repeats, targets[case.name])
        figures.append(one)
        print(
            f"{one.case:<24}{one.ours:>8.2f}{one.peer:>9.2f}{one.batch_size:>7}"
            f"{one.ratio:>8.2f}{one.target:>8.1f}  {'holds' if one.holds else 'missed'}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps([vars(one) for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
