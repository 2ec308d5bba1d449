"""What the sweep of defaults trains on and asks: a base with its gap and its guards."""

from __future__ import annotations

import csv
import json
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance

from evals.engine.packed import PackedLM
from pipeline.spec.train import TrainSpec, ValidationSpec
from pipeline.training.examples.encode import TrainingRow
from pipeline.training.fit import RunWatch, fit
from registry.models.load import BaseSpec, load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.models.load import LoadedModel

DATA = Path(__file__).parent.parent / "examples" / "quickstart" / "data"
INTENTS = 12
NEW_TOKENS = 24
REPLAY = 0.2
GUARDS = ("jobs", "days")


@dataclass(frozen=True)
class Question:
    """A question with its answer; `labels` where it is a choice."""

    asked: str
    answer: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ground:
    """A base, questions of its gap and of guards to train on, and those that it is asked."""

    loaded: LoadedModel
    gap: Sequence[Question]
    guards: Sequence[Question]
    gap_items: Sequence[Question]
    guard_items: Sequence[Question]


def ground(base: str, items: int) -> Ground:
    """Load a base and read its questions."""
    loaded = load_model("bench", BaseSpec(model=base, dtype="fp32"), Path.cwd())
    if base == "nano":
        gap, gap_items = (
            [
                *_quickstart("sentiment", split, "Positive or negative? "),
                *_quickstart("intent", split, "Which intent? "),
            ]
            for split in ("train", "dev")
        )
    else:
        gap, gap_items = (_banking(split) for split in ("train", "test"))
    guards, guard_items = (
        [one for name in GUARDS for one in _quickstart(name, split, "")]
        for split in ("train", "dev")
    )
    for questions in (gap, gap_items, guards, guard_items):
        random.Random(0).shuffle(questions)
    return Ground(loaded, gap, guards, gap_items[:items], guard_items[:items])


def _quickstart(name: str, split: str, before: str) -> list[Question]:
    lines = (DATA / name / f"{split}.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    labels = tuple(sorted({row["output"] for row in rows})) if before else ()
    return [Question(before + row["input"], row["output"], labels) for row in rows]


def _banking(split: str) -> list[Question]:
    folder = os.environ.get("GAPMEND_DATA")
    if not folder:
        sys.exit("GAPMEND_DATA is not set: a folder with banking77/train.csv and test.csv")
    with (Path(folder) / "banking77" / f"{split}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    every = sorted({row["category"] for row in rows})
    labels = every[:: len(every) // INTENTS][:INTENTS]
    named = tuple(label.replace("_", " ") for label in labels)
    asked = "Which intent does this bank customer have? "
    return [
        Question(asked + row["text"], row["category"].replace("_", " "), named)
        for row in rows
        if row["category"] in labels
    ]


def measured(found: Ground, spec: TrainSpec, rows: int, workdir: Path) -> dict[str, Any]:
    """Train on so many rows and return what came of it."""
    replayed = round(REPLAY * rows)
    chosen = [*found.gap[: rows - replayed], *found.guards[:replayed]]
    watched = spec.model_copy(update={"validation": ValidationSpec(every=10**6, patience=10**6)})
    held = RunWatch([_row(10**6 + at, one) for at, one in enumerate(found.gap_items)])
    began = time.process_time()
    made = [_row(at, one) for at, one in enumerate(chosen)]
    fitted = fit(found.loaded, made, watched, workdir, watch=held)
    seconds = time.process_time() - began
    found.loaded.use(fitted.adapter_dir)
    try:
        gap, guards = _right(found.loaded, found.gap_items), _right(found.loaded, found.guard_items)
    finally:
        found.loaded.use(None)
    return {
        "steps": fitted.steps,
        "tokens": fitted.tokens,
        "rate": fitted.learning_rate,
        "gap": gap,
        "guards": guards,
        "loss": fitted.losses[-1].validation_loss,
        "seconds": seconds,
    }


def _row(uid: int, one: Question) -> TrainingRow:
    turns = ({"role": "user", "content": one.asked}, {"role": "assistant", "content": one.answer})
    return TrainingRow(uid=uid, messages=turns, tools=None, capability="bench")


def _right(loaded: LoadedModel, items: Sequence[Question]) -> float:
    """Share of the items that it answers right; greedy, or by the likeliest label."""
    model = PackedLM(loaded)
    prompts = [
        loaded.chat.render([{"role": "user", "content": one.asked}], add_generation_prompt=True)
        for one in items
    ]
    if items[0].labels:
        pairs = [
            (prompt, label)
            for prompt, one in zip(prompts, items, strict=True)
            for label in one.labels
        ]
        asked = [Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(pairs)]
        scores = iter(model.loglikelihood(asked))
        best = [max((next(scores)[0], label) for label in one.labels)[1] for one in items]
        right = [one.answer == label for one, label in zip(items, best, strict=True)]
    else:
        stop = {"until": ["\n", "<|end|>", "<|im_end|>"], "max_gen_toks": NEW_TOKENS}
        asked = [
            Instance("generate_until", {}, (prompt, stop), at) for at, prompt in enumerate(prompts)
        ]
        said = model.generate_until(asked)
        right = [one.answer.lower() in text.lower() for one, text in zip(items, said, strict=True)]
    return sum(right) / len(right)
