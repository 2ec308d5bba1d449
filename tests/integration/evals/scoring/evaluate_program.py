"""One long evaluation in its own process, to be killed: `evaluate_program.py ROOT STORE KIND`."""

from __future__ import annotations

import sys
from pathlib import Path

from evals.scoring.evaluate import EvalResult, evaluate
from evals.tasks.capability import CapabilitySpec, Item
from evals.tasks.prompts import arms_of
from registry.catalog.catalog import Catalog
from registry.models.load import BaseSpec, identify, load_model
from registry.store.objects import Store

ITEMS = 600
LABELS = ("yes", "yes, always", "no", "never")
CHOICE = CapabilitySpec(data="d", answer="choice", goal=0.5, labels=LABELS)
EXACT = CapabilitySpec(data="d", answer="exact", goal=0.5, max_new_tokens=8)


def item(uid: int) -> Item:
    fields = {"input": f"is card {uid} red?", "output": LABELS[uid % 4]}
    return Item(uid, f"{uid:064x}", fields, fields["output"], uid)


def run(root: Path, store: Path, kind: str) -> tuple[EvalResult, int]:
    """Evaluate in small batches; return the result and how many tokens the model read for it."""
    from evals.engine.packed import PackedLM

    base = BaseSpec(model=str(root / "base"))
    engine = PackedLM(load_model("base", base, root, threads=1), token_budget=64)
    read = engine.tokens_processed
    spec = CHOICE if kind == "choice" else EXACT
    result = evaluate(
        Store(store),
        Catalog(store),
        engine,
        subject=kind,
        spec=spec,
        arm=arms_of(spec.prompts)[0],
        shots=(),
        items=[item(uid) for uid in range(ITEMS)],
        split="dev",
        base=identify("base", base, root),
    )
    return result, engine.tokens_processed - read


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
