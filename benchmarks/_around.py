"""What an evaluation costs around the model's forward, and what asking again costs."""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _shared import NEW_TOKENS, Figure, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evals.tasks.capability import CapabilitySpec, Item
    from registry.models.load import LoadedModel

ITEMS = 2000
# Of the larger model: its fixed costs then weigh more than on all items, never less.
FEW = 200
PROMPT = {"zero_shot": "Which intent? {input}"}
ORDINARY = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
}


def overhead(repeats: int, target: float) -> Iterator[Figure]:
    """Give the share of nano, by choice and by generation, and of a larger model if nano misses it.

    The share is (CPU seconds of all of `evaluate` - those inside the forward) / those inside the
    forward. `evaluate` is all of it: the plan, rendering, tokens, a fresh engine, lm-eval's
    evaluator, the journal, the Parquet file and the catalog. nano's forward is so small that this
    is the hardest case.
    """
    from registry.models.base import BaseSpec
    from registry.models.load import load_model

    held = True
    loaded = load_model("nano", BaseSpec(model="nano"), Path.cwd())
    for kind, spec in _specs().items():
        figure = _share(f"overhead_{kind}_nano", loaded, spec, ITEMS, repeats, target)
        held = held and figure.holds
        yield figure
    if held:
        return
    with tempfile.TemporaryDirectory() as folder:
        _save_ordinary(Path(folder))
        loaded = load_model("ordinary", BaseSpec(model=folder), Path.cwd())
        size = f"{loaded.identity.parameters / 1e6:.0f}M"
        for kind, spec in _specs().items():
            yield _share(f"overhead_{kind}_{size}", loaded, spec, FEW, 1, target)


def rerun(repeats: int, target: float) -> Figure:
    """Return the wall-clock seconds of a whole `gapmend gap` that was done before, the median.

    Raises:
        SystemExit: it measures other items than were meant, or isn't answered from the store.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write_workspace(Path(folder))
        first, _ = _gap(folder)
        taken = []
        for _ in range(repeats):
            seconds, found = _gap(folder)
            taken.append(seconds)
            measured = found["findings"][0]["base"]["n"]
            if measured != ITEMS or not found["cached"]:
                sys.exit(f"gap: {measured} items, cached: {found['cached']}")
    note = f"the first run, which measures: {first:.1f} s"
    return Figure.at_most("cached_rerun_seconds", "s", statistics.median(taken), target, note)


def _specs() -> dict[str, CapabilitySpec]:
    from evals.tasks.capability import CapabilitySpec

    labels = tuple(sorted({row["output"] for row in _rows()}))
    asked: dict[str, Any] = {"data": "intent", "goal": 0.5, "prompts": PROMPT}
    return {
        "choice": CapabilitySpec(answer="choice", labels=labels, **asked),
        "generation": CapabilitySpec(answer="exact", max_new_tokens=NEW_TOKENS, **asked),
    }


def _rows() -> list[dict[str, str]]:
    return [*read("intent", "train"), *read("intent", "dev")][:ITEMS]


def _share(
    case: str, loaded: LoadedModel, spec: CapabilitySpec, count: int, repeats: int, target: float
) -> Figure:
    from evals.tasks.capability import Item

    items = [
        Item(uid, f"{uid:064x}", row, row["output"], uid) for uid, row in enumerate(_rows()[:count])
    ]
    _evaluate(loaded, spec, items[:10])  # imports, and what the process does once
    runs = [_evaluate(loaded, spec, items) for _ in range(repeats)]
    share = statistics.median((total - inside) / inside for total, inside in runs)
    total, inside = (statistics.median(side) for side in zip(*runs, strict=True))
    note = f"{count} items: {total:.2f} CPU s, of these {inside:.2f} inside the forward"
    return Figure.at_most(case, "share", share, target, note)


def _evaluate(loaded: LoadedModel, spec: CapabilitySpec, items: list[Item]) -> tuple[float, float]:
    """Return CPU seconds of one evaluation in a new store, and those inside the forward."""
    from evals.engine.packed import PackedLM
    from evals.scoring.evaluate import evaluate
    from evals.tasks.prompts import arms_of
    from registry.catalog.catalog import Catalog
    from registry.store.objects import Store

    with tempfile.TemporaryDirectory() as folder, _timed(loaded.model) as inside:
        root = Path(folder) / ".gapmend"
        began = time.process_time()
        evaluate(
            Store(root),
            Catalog(root),
            lambda: PackedLM(loaded),
            subject="intent",
            spec=spec,
            arm=arms_of(spec.prompts)[0],
            shots=(),
            items=items,
            split="dev",
            base=loaded.identity,
        )
        return time.process_time() - began, sum(inside)


@contextmanager
def _timed(model: Any) -> Iterator[list[float]]:
    """Collect the CPU seconds of every forward of a model."""
    taken: list[float] = []
    plain = model.forward

    @functools.wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return plain(*args, **kwargs)
        finally:
            taken.append(time.process_time() - began)

    model.forward = forward
    try:
        yield taken
    finally:
        del model.forward


def _save_ordinary(folder: Path) -> None:
    """Save a model of ordinary shape, with random weights and all else as in nano."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from registry.models.base import nano_folder

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(nano_folder(), **ORDINARY)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(nano_folder()).save_pretrained(folder)


def _write_workspace(folder: Path) -> None:
    """Write a workspace with one capability, of ITEMS dev items."""
    parts = {
        "train": read("intent", "train")[-100:],
        "dev": _rows(),
        "test": read("intent", "test"),
    }
    for split, rows in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, "utf-8")
    spec = {
        "bases": {"nano": {"model": "nano"}},
        "datasets": {
            "intent": {
                "path": {split: f"{split}.jsonl" for split in parts},
                "columns": {"input": "input", "output": "output"},
                "license": "Apache-2.0",
            }
        },
        "capabilities": {
            "intent": {"data": "intent", "answer": "choice", "prompts": PROMPT, "goal": 0.75}
        },
        "train": {"base": "nano", "pool": ["intent"], "budget_rows": 100},
    }
    (folder / "gapmend.yaml").write_text(json.dumps(spec), "utf-8")  # JSON is YAML


def _gap(folder: str) -> tuple[float, Any]:
    """Return the wall-clock seconds of `gapmend gap`, a process of its own, and what it prints."""
    program = Path(sys.executable).parent / "gapmend"
    began = time.perf_counter()
    ran = subprocess.run([program, "gap", "-C", folder, "--json"], capture_output=True, check=True)
    return time.perf_counter() - began, json.loads(ran.stdout)
