"""How much CPU and memory scoring takes, beside lm-eval's own Hugging Face backend.

    python benchmarks/scoring.py [--items 500] [--repeats 5] [--threads 1]
                                 [--only NAME] [--json FILE]

Same model (nano), items, threads and precision, in one process, in turns; CPU seconds, medians.
The peer runs at its best batch size, found for each case before anything is counted. Every case
also compares the results: log-likelihoods within 1e-4 and 2 millionths of them, the same answers,
or it is no comparison.
Memory is that of fresh processes (_memory.py); what has no peer, the overhead around the forward
and asking again, is in _around.py. NAME is a target's in targets.toml.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _around
import _memory
from _shared import HEAD, Case, Figure, cases, targets

from registry.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lm_eval.models.huggingface import HFLM

    from registry.models.load import LoadedModel

BATCH_SIZES = (4, 16, 64)
CLOSE = 1e-4
RELATIVE = 2e-6  # either side is up to 1e-4 off float64 where random adapters give -50 to -99
ADAPTERS = 4
RANK = 16


@dataclass
class Beside:
    """Both sides, loaded when they are first asked, and what has been found out about them."""

    items: int
    repeats: int
    best: dict[str, int] = field(default_factory=dict)

    @cached_property
    def cases(self) -> dict[str, Case]:
        """The work."""
        return cases(self.items)

    @cached_property
    def loaded(self) -> LoadedModel:
        """Our side's model."""
        return load_ours()

    @cached_property
    def peer(self) -> HFLM:
        """lm-eval's side."""
        return load_theirs()

    def best_size(self, case: Case) -> int:
        """Return the batch size at which the peer is quickest, tried once."""
        if case.name not in self.best:
            self.best[case.name] = min(BATCH_SIZES, key=lambda n: theirs(self.peer, case, n)[0])
        return self.best[case.name]

    def figures(self, name: str, threads: int, target: float) -> Iterable[Figure]:
        """Measure what the target of this name is about."""
        if name == "adapters_5_shot":
            return [self.with_adapters(name, target)]
        if name == "generation_peak_memory":
            size = self.best_size(self.cases[_memory.CASE])
            return [_memory.measure(self.items, threads, size, self.repeats, target)]
        if name == "overhead_share":
            return _around.overhead(self.repeats, target)
        if name == "cached_rerun_seconds":
            return [_around.rerun(self.repeats, target)]
        return [self.alone(self.cases[name], target)]

    def alone(self, case: Case, target: float) -> Figure:
        """Run both sides on loaded models, in turns.

        Raises:
            SystemExit: they don't agree, so that there is nothing to compare.
        """
        best = self.best_size(case)
        mine: list[float] = []
        other: list[float] = []
        for _ in range(self.repeats):
            seconds, found = ours(self.loaded, case)
            mine.append(seconds)
            seconds, expected = theirs(self.peer, case, best)
            other.append(seconds)
            if not agree(found, expected):
                sys.exit(f"{case.name}: the results differ, so that the times compare nothing")
        sides = statistics.median(mine), statistics.median(other)
        return Figure.beside(case.name, "CPU s", sides, best, target)

    def with_adapters(self, name: str, target: float) -> Figure:
        """Score the base and each adapter: ours loads the base once, lm-eval for every run.

        Loading is counted on both sides, importing the libraries on neither.

        Raises:
            SystemExit: the sides don't agree on some adapter, or an adapter changes nothing.
        """
        case = self.cases["choice_5_shot_shared"]
        best = self.best_size(case)
        mine: list[float] = []
        other: list[float] = []
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            made = [save_adapter(Path(folder) / str(n), seed=n) for n in range(ADAPTERS)]
            for _ in range(self.repeats):
                seconds, found = ours_with_adapters(case, made)
                mine.append(seconds)
                seconds, expected = theirs_with_adapters(case, made, best)
                other.append(seconds)
                for run, (one, peer) in enumerate(zip(found, expected, strict=True)):
                    if not agree(one, peer) or (run and agree(one, found[0])):
                        sys.exit(f"{name}: run {run} differs, or its adapter changes nothing")
        sides = statistics.median(mine), statistics.median(other)
        return Figure.beside(name, "CPU s", sides, best, target)


def load_ours() -> LoadedModel:
    """Load nano as gapmend does."""
    from registry.models.base import BaseSpec
    from registry.models.load import load_model

    return load_model("nano", BaseSpec(model="nano"), Path.cwd())


def load_theirs(adapter: Path | None = None) -> HFLM:
    """Load nano as lm-eval does, with an adapter or without."""
    from lm_eval.models.huggingface import HFLM

    from registry.models.base import nano_folder

    tuned = {} if adapter is None else {"peft": str(adapter)}
    return HFLM(str(nano_folder()), dtype="float32", device="cpu", batch_size=16, **tuned)


def ours(loaded: LoadedModel, case: Case) -> tuple[float, list[Any]]:
    """Return CPU seconds and results of a fresh engine over the loaded model."""
    from evals.engine.packed import PackedLM

    began = time.process_time()
    results = getattr(PackedLM(loaded), case.kind)(case.requests)
    return time.process_time() - began, results


def theirs(peer: HFLM, case: Case, batch_size: int) -> tuple[float, list[Any]]:
    """Return CPU seconds and results of lm-eval's backend at a batch size."""
    peer.batch_size_per_gpu = batch_size
    began = time.process_time()
    results = getattr(peer, case.kind)(case.requests, disable_tqdm=True)
    return time.process_time() - began, results


def ours_with_adapters(case: Case, adapters: Sequence[Path]) -> tuple[float, list[Any]]:
    """Return CPU seconds, loading included, and results of one engine for all."""
    from evals.engine.packed import PackedLM

    began = time.process_time()
    engine = PackedLM(load_ours())
    results = []
    for adapter in (None, *adapters):
        engine.use(adapter)
        results.append(getattr(engine, case.kind)(case.requests))
    return time.process_time() - began, results


def theirs_with_adapters(
    case: Case, adapters: Sequence[Path], batch_size: int
) -> tuple[float, list[Any]]:
    """Return CPU seconds, loading included, and results of one run each."""
    seconds, results = 0.0, []
    for adapter in (None, *adapters):
        began = time.process_time()
        peer = load_theirs(adapter)
        seconds += time.process_time() - began
        taken, found = theirs(peer, case, batch_size)
        seconds += taken
        results.append(found)
    return seconds, results


def save_adapter(folder: Path, *, seed: int) -> Path:
    """Save a LoRA adapter for nano that changes its answers: its B is drawn, not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    wrapped = get_peft_model(load_ours().model, settings)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    wrapped.save_pretrained(folder)
    return folder


def agree(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether both sides found the same."""
    if isinstance(one[0], str):
        return list(one) == list(other)
    return all(
        abs(a[0] - b[0]) < CLOSE + RELATIVE * abs(b[0]) for a, b in zip(one, other, strict=True)
    )


def main() -> None:
    """Measure, print the table and write the JSON."""
    wanted = targets()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=wanted, metavar="NAME", help="measure this target alone")
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()

    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    beside = Beside(given.items, given.repeats)
    print(f"{given.items} items, {given.threads} threads, medians of {given.repeats}")
    print(HEAD)
    figures = []
    for name in [given.only] if given.only else wanted:
        for figure in beside.figures(name, given.threads, wanted[name]):
            figures.append(figure)
            print(figure.line(), flush=True)
    if given.json:
        given.json.write_text(json.dumps([vars(one) for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
