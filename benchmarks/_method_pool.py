"""The pool that the arms of bench-method choose from, and the workspace around it.

5,000 rows that nobody has labelled: 60% of what the base can do, 10% wrong answers, 10% of what
nothing asks about, 20% for three gaps. What each row is stands in a list beside them, which only
the arms that are said to see labels look at.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _method_figures import shared
from _method_rows import (
    Pair,
    alpaca,
    banking,
    dates,
    draws,
    lists,
    orders,
    quickstart,
    recalls,
    repeats,
    row,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

EXAMPLES = Path(__file__).parent.parent / "examples"
POOL = 5_000
SHARES = {"mastered": 0.6, "wrong": 0.1, "irrelevant": 0.1, "gap": 0.2}
NANO_INTENTS = 8
ITEMS = {"dev": 100, "test": 100}
PROMPTS = 40  # of alpaca, that KL is measured on


@dataclass(frozen=True)
class Fact:
    """What a row of the pool is: `mastered`, `wrong`, `irrelevant` or `gap`; and of which task."""

    kind: str
    task: str


@dataclass(frozen=True)
class Field:
    """All that a base is tried on.

    Attributes:
        gaps: capability -> its spec.
        guards: guard -> its spec.
        train: capability, guard or other task the base masters -> rows that may be trained on.
        held: capability or guard -> split -> items.
        train_spec: the spec's `train:` beside the defaults.
        base: the spec of the base.
    """

    gaps: dict[str, dict[str, Any]]
    guards: dict[str, dict[str, Any]]
    train: dict[str, list[Pair]]
    held: dict[str, dict[str, list[Pair]]]
    train_spec: dict[str, Any]
    base: dict[str, Any]


def make(base: str, seed: int, folder: Path) -> None:
    """Write the workspace of one base and seed: gapmend.yaml, its data, and `facts.json`."""
    field = nano() if base == "nano" else smollm2(base)
    rng = random.Random(f"{base}/{seed}")
    rows = pool(field, rng)
    data = folder / "data"
    _write(data / "pool.jsonl", (_chat(pair, field, fact.task) for pair, fact in rows))
    (folder / "facts.json").write_text(json.dumps([[f.kind, f.task] for _, f in rows]))
    for name, splits in field.held.items():
        for split, items in splits.items():
            _write(data / name / f"{split}.jsonl", map(_item, items))
    for name in field.guards:
        if field.guards[name].get("replay", True):
            _write(data / name / "train.jsonl", map(_item, field.train[name]))
    prompts = [Pair(one.asked, one.answer) for one in _alpaca()[-PROMPTS:]]
    _write(data / "alpaca" / "dev.jsonl", map(_item, prompts))
    scorer = EXAMPLES / "assistant" / "order_form.py"
    (folder / scorer.name).write_bytes(scorer.read_bytes())
    (folder / "gapmend.yaml").write_text(json.dumps(spec(field, folder), indent=1))


def spec(field: Field, folder: Path) -> dict[str, Any]:
    """Return the spec: three gaps, guards of which one in three is a witness, one free dataset."""
    columns = {"input": "input", "output": "output"}
    whole = {"dev": 0, "test": 0}
    datasets: dict[str, Any] = {"pool": {"path": {"train": "data/pool.jsonl"}, "split": whole}}
    for name in (*field.held, "alpaca"):
        files = sorted((folder / "data" / name).glob("*.jsonl"))
        paths = {file.stem: f"data/{name}/{file.name}" for file in files}
        datasets[name] = {"path": paths, "columns": columns}
    return {
        "bases": {"base": field.base},
        "datasets": datasets,
        "capabilities": {name: {"data": name, **one} for name, one in field.gaps.items()},
        "guards": {name: {"data": name, **one} for name, one in field.guards.items()},
        "train": {"base": "base", "pool": ["pool"], **field.train_spec},
        "mend": {"rounds": 2},
    }


def pool(field: Field, rng: random.Random) -> list[tuple[Pair, Fact]]:
    """Draw the pool: rows in a drawn order, each with what it is.

    Wrong answers are as frequent among rows of the gaps as among those that the base masters.
    """
    gaps = list(field.gaps)
    rows: list[tuple[Pair, Fact]] = []
    for kind, names in (("gap", gaps), ("mastered", sorted(set(field.train) - set(gaps)))):
        right = round(SHARES[kind] * POOL)
        wrong = round(SHARES["wrong"] * POOL * SHARES[kind] / (SHARES["gap"] + SHARES["mastered"]))
        sizes = shared({name: len(field.train[name]) for name in names}, right + wrong)
        if sum(sizes.values()) < right + wrong:
            sys.exit(f"{right + wrong - sum(sizes.values())} rows too few of {', '.join(names)}")
        drawn = [
            (one, name) for name in names for one in rng.sample(field.train[name], sizes[name])
        ]
        false = set(rng.sample(range(len(drawn)), wrong))
        for place, (one, name) in enumerate(drawn):
            if place not in false:
                rows.append((one, Fact(kind, name)))
                continue
            others = [two.answer for two in field.train[name] if two.answer != one.answer]
            rows.append((Pair(one.asked, rng.choice(others)), Fact("wrong", name)))
    others = rng.sample(_alpaca()[:-PROMPTS], round(SHARES["irrelevant"] * POOL))
    rows += [(one, Fact("irrelevant", "alpaca")) for one in others]
    rng.shuffle(rows)
    return rows


def smollm2(model: str) -> Field:
    """Return what SmolLM2-135M-Instruct is tried on."""
    sys.path.insert(0, str(EXAMPLES / "assistant"))
    import make_data

    every = {name: make_data.items(name) for name in make_data.GUARDS if name != "chats"}
    made = {
        name: {split: [row(one) for one in rows] for split, rows in splits.items()}
        for name, splits in every.items()
    }
    held = {name: _cut(splits) for name, splits in made.items()}
    held["intent"] = _cut({"dev": banking("test")[::2], "test": banking("test")[1::2]})
    held["dates"] = {split: dates(split, ITEMS[split]) for split in ITEMS}
    held["chats"] = {split: recalls(split, ITEMS[split]) for split in ITEMS}
    train = {name: splits["train"] for name, splits in made.items() if name != "categories"}
    train |= {"intent": banking("train"), "dates": dates("train", 700)}
    train["orders"] = orders(700, [one for split in ITEMS for one in held["orders"][split]])
    taken = {one.answer.split()[0] for split in ITEMS for one in made["repeats"][split]}
    train |= {"repeats": repeats(2_000, taken), "lists": lists(1_500)}
    own = {"answer": "choice", "labels": "{options}", "max_drop": 0.05}
    said = {"answer": "contains", "max_drop": 0.05}
    return Field(
        gaps={
            "intent": {
                "answer": "choice",
                "goal": 0.75,
                **_asks("Which intent does this bank customer have?"),
            },
            "orders": {
                "answer": "python:order_form:order",
                "max_new_tokens": 40,
                "goal": 0.75,
                **_asks("Write this order as JSON with the keys count, size, item and name."),
            },
            "dates": {
                "answer": "exact",
                "max_new_tokens": 16,
                "goal": 0.75,
                **_asks("Write this date as year-month-day."),
            },
        },
        guards={
            "facts": own,
            "opposites": own,
            "plurals": own,
            "repeats": {**said, "max_new_tokens": 16},
            "categories": {**own, "replay": False},
            "chats": {**said, "max_new_tokens": 16, "replay": False},
        },
        train=train,
        held=held,
        train_spec={"budget_rows": 150},
        base={"model": str(Path(model).resolve()) if "/" in model else model, "dtype": "fp32"},
    )


def nano() -> Field:
    """Return what nano is tried on: the quickstart's own data, and more of the same kind."""
    from registry.nano.recipe import tasks
    from registry.nano.recipe.words import lexicon

    data = EXAMPLES / "quickstart" / "data"
    names = ("sentiment", "intent", "form", "jobs", "days", "colours", "numbers")
    there = {
        name: {split: quickstart(data / name / f"{split}.jsonl") for split in ("train", *ITEMS)}
        for name in names
    }
    rng = random.Random("bench/nano")
    words = lexicon("base")
    made = {"lookup": tasks.lookup, "questions": tasks.questions, "numbers": tasks.numbers}
    train = {name: splits["train"] for name, splits in there.items() if name != "colours"}
    train["form"] = draws(partial(tasks.form, rng, words), 700)
    train |= {name: draws(partial(task, rng, words), 1_000) for name, task in made.items()}
    kinds = {
        label for label, _ in Counter(o.answer for o in train["intent"]).most_common(NANO_INTENTS)
    }
    train["intent"] = [one for one in train["intent"] if one.answer in kinds]
    there["intent"] = {
        split: [one for one in rows if one.answer in kinds]
        for split, rows in there["intent"].items()
    }
    short = {"answer": "exact", "max_new_tokens": 8, "max_drop": 0.05}
    return Field(
        gaps={
            "sentiment": {"answer": "choice", "goal": 0.75, **_asks("Positive or negative?")},
            "intent": {"answer": "choice", "goal": 0.75, **_asks("Which intent?")},
            "form": {
                "answer": "exact",
                "max_new_tokens": 12,
                "goal": 0.75,
                **_asks("Fill in the form."),
            },
        },
        guards={
            "jobs": short,
            "days": short,
            "numbers": short,
            "colours": {**short, "replay": False},
        },
        train=train,
        held={name: _cut(splits) for name, splits in there.items()},
        train_spec={
            "budget_rows": 400,
            "epochs": 4,
            "learning_rate": 2e-3,
            "batch_tokens": 384,
        },
        base={"model": "nano"},
    )


def _alpaca() -> list[Pair]:
    """Return rows for the pool and, the last, those that KL is measured on."""
    return alpaca(POOL // 10 + PROMPTS + 100)


def _asks(prompt: str) -> dict[str, Any]:
    return {"prompts": {"zero_shot": f"{prompt} {{input}}"}}


def _cut(splits: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    return {split: splits[split][:most] for split, most in ITEMS.items()}


def _chat(pair: Pair, field: Field, task: str) -> dict[str, Any]:
    """Return a row as a chat that somebody had: a gap's question by the prompt it is asked by."""
    prompt = field.gaps.get(task, {}).get("prompts", {}).get("zero_shot", "{input}")
    asked = prompt.replace("{input}", pair.asked)
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": pair.answer},
        ]
    }


def _item(pair: Pair) -> dict[str, Any]:
    own = {"options": list(pair.options)} if pair.options else {}
    return {"input": pair.asked, "output": pair.answer, **own}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
