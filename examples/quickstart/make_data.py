"""Write the quickstart's data: `python examples/quickstart/make_data.py [DIR]`.

Every file is made from a seed, byte for byte the same on any machine. Dev and test use names,
towns, things and number pairs that neither the training pool nor the base model's corpus has, and
no two rows of a capability are near-duplicates, within a split or across.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import reviews  # beside this file
import support

from registry.datasets.duplicates.near_duplicates import near_pairs
from registry.nano.recipe import tasks
from registry.nano.recipe.words import Lexicon, lexicon

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.nano.recipe.tasks import TaskQuestion

HERE = Path(__file__).resolve().parent
SIZES = {"test": 1_000, "dev": 1_000, "train": 1_500}
TRAIN = {"form": 200, "numbers": 600, "colours": 600, "jobs": 600, "days": 600}
"""Fewer rows to train on where they only give examples or refresh what the base can do."""
SPARE = 1.6
"""Rows made for each row kept: near-duplicates fall out."""
CAPABILITIES: dict[str, Callable[[random.Random, Lexicon], TaskQuestion]] = {
    "numbers": tasks.numbers,
    "form": tasks.form,
    "sentiment": reviews.review,
    "intent": support.request,
    "colours": tasks.colours,
    "jobs": tasks.jobs,
    "days": tasks.days,
}


def rows(name: str) -> dict[str, list[TaskQuestion]]:
    """Return the rows of a capability by split, without near-duplicates."""
    sizes = SIZES | {"train": TRAIN.get(name, SIZES["train"])}
    made: list[TaskQuestion] = []
    splits: list[str] = []
    for split, size in sizes.items():
        rng = random.Random(f"{name}/{split}")
        words = lexicon("base" if split == "train" else split)
        drawn = [CAPABILITIES[name](rng, words) for _ in range(int(size * SPARE))]
        made += drawn
        splits += [split] * len(drawn)
    kept: dict[str, list[TaskQuestion]] = {split: [] for split in sizes}
    for position in _apart([item.input for item in made]):
        chosen = kept[splits[position]]
        if len(chosen) < sizes[splits[position]]:
            chosen.append(made[position])
    short = {split: len(items) for split, items in kept.items() if len(items) < sizes[split]}
    if short:
        msg = f"{name}: too few distinct rows: {short}; raise SPARE"
        raise ValueError(msg)
    return kept


def _apart(texts: list[str]) -> list[int]:
    """Return the positions that are left when no two near-duplicates may stay, first come."""
    near: dict[int, set[int]] = {}
    for pair in near_pairs(texts, texts):
        near.setdefault(pair.left, set()).add(pair.right)
    left: set[int] = set()
    for position in range(len(texts)):
        if not near.get(position, set()) & left:
            left.add(position)
    return sorted(left)


def write(folder: Path) -> None:
    """Write folder/NAME/SPLIT.jsonl for every capability and split."""
    for name in CAPABILITIES:
        write_one(folder, name)


def write_one(folder: Path, name: str) -> None:
    """Write folder/NAME/SPLIT.jsonl for every split of one capability."""
    for split, items in rows(name).items():
        path = folder / name / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"input": item.input, "output": item.output}, ensure_ascii=False)
            for item in items
        ]
        path.write_bytes(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data")
