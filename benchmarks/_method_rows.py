"""What the arms of bench-method are taught and asked: real rows, and ones that are made here.

GAPMEND_DATA is a folder with banking77/ and llamafactory/.
"""

from __future__ import annotations

import csv
import json
import os
import random
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

INTENTS = (
    "activate_my_card age_limit apple_pay_or_google_pay atm_support cancel_transfer card_arrival "
    "change_pin exchange_rate lost_or_stolen_phone request_refund terminate_account top_up_limits"
).split()


@dataclass(frozen=True)
class Pair:
    """A question and its answer; `options` where the question has its own."""

    asked: str
    answer: str
    options: tuple[str, ...] = ()


def banking(split: str) -> list[Pair]:
    """Return banking77's rows of twelve intents, in a drawn order."""
    with (_data() / "banking77" / f"{split}.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] in INTENTS]
    random.Random(split).shuffle(rows)
    return [Pair(row["text"], row["category"].replace("_", " ")) for row in rows]


def alpaca(count: int) -> list[Pair]:
    """Return the shortest rows of LLaMA-Factory's alpaca demo, in a fixed order."""
    rows = json.loads((_data() / "llamafactory" / "alpaca_en_demo.json").read_text("utf-8"))
    found = [
        Pair("\n".join(part for part in (row["instruction"], row["input"]) if part), row["output"])
        for row in rows
    ]
    return sorted(found, key=lambda one: len(one.asked + one.answer))[:count]


_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_SAID = (
    "{day} {month} {year}",
    "{month} {day}, {year}",
    "the {day}{th} of {month} {year}",
    "{month} the {day}{th}, {year}",
    "{day}{th} {month}, {year}",
)


def dates(split: str, count: int) -> list[Pair]:
    """Return dates in words, and as year-month-day; a date is in one split alone."""
    days = [(year, m, day) for year in range(1950, 2030) for m in range(12) for day in range(1, 29)]
    random.Random("dates").shuffle(days)
    first = {"dev": 0, "test": 5_000, "train": 10_000}[split]
    rng = random.Random(f"dates/{split}")
    made = []
    for year, m, day in days[first : first + count]:
        th = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day // 10 != 1 else 0, "th")
        said = rng.choice(_SAID).format(day=day, th=th, month=_MONTHS[m], year=year)
        made.append(Pair(said, f"{year}-{m + 1:02}-{day:02}"))
    return made


def orders(count: int, held: list[Pair]) -> list[Pair]:
    """Return orders of what nobody in `held` orders, by people who are in no other split.

    The same order for another name would be 13 words in a row of what is held.
    """
    import make_data
    import words

    ordered = {tuple(json.loads(one.answer).values())[:3] for one in held}
    names = {json.loads(one["output"])["name"] for one in make_data.items("orders")["train"]}
    rng = random.Random("orders")
    every = product(range(1, 7), words.ORDER_SIZES, words.DISHES, sorted(names), words.ORDERS)
    left = [one for one in every if one[:3] not in ordered]
    made = []
    for number, size, dish, name, said in rng.sample(left, count):
        several = f"{dish}s" if number > 1 else dish
        asked = said.format(count=words.COUNTS[number - 1], size=size, item=several, name=name)
        order = {"count": number, "size": size, "item": dish, "name": name}
        made.append(Pair(asked, json.dumps(order)))
    return made


def recalls(split: str, count: int) -> list[Pair]:
    """Return questions about a name that was just said."""
    import words

    rng = random.Random(f"recalls/{split}")
    made: dict[str, Pair] = {}
    while len(made) < count:
        name, liked = rng.choice(_names()[split]), rng.choice(words.LIKES.split())
        asked = f"My name is {name} and I like {liked}. What is my name?"
        made[asked] = Pair(asked, name)
    return list(made.values())


def repeats(count: int, taken: set[str]) -> list[Pair]:
    """Return sentences to repeat, about nobody of `taken`."""
    import words

    rng = random.Random("repeats")
    names = [name for name in words.NAMES.split() if name not in taken]
    nouns, kinds = words.NOUNS.split(), words.ADJECTIVES.split()
    made: dict[str, None] = {}
    while len(made) < count:
        said = f"{rng.choice(names)} has a {rng.choice(kinds)} {rng.choice(nouns)}."
        made[said] = None
    return [Pair(f"Repeat this sentence: {one}", one) for one in made]


def lists(count: int) -> list[Pair]:
    """Return words to say again."""
    import words

    rng = random.Random("lists")
    made = (", ".join(rng.sample(words.NOUNS.split(), 3)) for _ in range(count))
    return [Pair(f"Say these words again: {one}.", f"{one}.") for one in made]


def _names() -> dict[str, list[str]]:
    import make_data

    every = sorted(name for name, _ in make_data.names())
    random.Random("names").shuffle(every)
    fifth = len(every) // 5
    return {
        "dev": every[:fifth],
        "test": every[fifth : 2 * fifth],
        "train": every[2 * fifth :],
    }


def row(one: dict[str, Any]) -> Pair:
    """Return a row of the assistant's data."""
    return Pair(one["input"], one["output"], tuple(one.get("options", ())))


def quickstart(file: Path) -> list[Pair]:
    """Return the rows of a file of the quickstart."""
    rows = map(json.loads, file.read_text("utf-8").splitlines())
    return [Pair(row["input"], row["output"]) for row in rows]


def draws(draw: Callable[[], Any], count: int) -> list[Pair]:
    """Return rows that are drawn, no question twice."""
    made = {(one := draw()).input: one.output for _ in range(2 * count)}
    return [Pair(question, answer) for question, answer in list(made.items())[:count]]


def _data() -> Path:
    folder = os.environ.get("GAPMEND_DATA")
    if not folder:
        sys.exit("GAPMEND_DATA is not set: a folder with banking77/ and llamafactory/")
    return Path(folder)
