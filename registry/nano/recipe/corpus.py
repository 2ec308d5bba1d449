"""The corpus: documents of one or many turns, drawn without end from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.nano.recipe import tasks
from registry.nano.recipe.tasks import Item
from registry.nano.recipe.words import COLOURS, Lexicon, lexicon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_TURNS = 24
_TASKS: tuple[tuple[Callable[[random.Random, Lexicon], Item], int], ...] = (
    (tasks.lookup, 20),
    (tasks.questions, 22),
    (tasks.arithmetic, 30),
    (tasks.reverse, 14),
    (tasks.field, 8),
    (tasks.copying, 6),
)
_GENERATORS = tuple(task for task, _ in _TASKS)
_WEIGHTS = tuple(weight for _, weight in _TASKS)


@dataclass(frozen=True, slots=True)
class Document:
    """A conversation of turns or, when `text` is not empty, plain text."""

    turns: tuple[Item, ...] = ()
    text: str = ""


def documents(seed: int) -> Iterator[Document]:
    """Yield documents without end; the same for the same seed."""
    rng = random.Random(seed)
    words = lexicon("base")
    kinds = (_single, _same, _mixed, _slips, _story)
    while True:
        yield rng.choices(kinds, (52, 13, 9, 23, 3))[0](rng, words)


def _single(rng: random.Random, words: Lexicon) -> Document:
    """One question of any task."""
    return Document((_task(rng)(rng, words),))


def _same(rng: random.Random, words: Lexicon) -> Document:
    """Several questions of one task, as few-shot prompts have them."""
    task = _task(rng)
    return Document(tuple(task(rng, words) for _ in range(_turns(rng))))


def _mixed(rng: random.Random, words: Lexicon) -> Document:
    """Questions of several tasks in a row."""
    return Document(tuple(_task(rng)(rng, words) for _ in range(rng.randint(2, 6))))


def _slips(rng: random.Random, words: Lexicon) -> Document:
    """Records of one kind; which field is the answer shows only in the turns before."""
    kind = tasks.slip_kind(rng)
    wanted = rng.choice(kind.keys)
    turns = []
    for _ in range(_turns(rng)):
        slip = kind.fill(rng, words)
        turns.append(Item(kind.prefix + slip.text(), dict(slip.fields)[wanted]))
    return Document(tuple(turns))


def _story(rng: random.Random, words: Lexicon) -> Document:
    """A few plain sentences about one person."""
    who, other = words.name(rng), words.name(rng)
    town, thing = words.town(rng), words.noun(rng)
    lines = [
        f"{who} lives in {town}.",
        f"One day {who} went to {town} to buy the {rng.choice(COLOURS)} {thing}.",
        f"There {who} met {other}.",
        f"{other} was looking for a {thing} too.",
        f"They walked home together and talked about the {thing}.",
        f"In the evening {who} gave the {thing} to {other}.",
        f"{other} was happy with the {thing}.",
    ]
    start = rng.randint(0, 2)
    return Document(text=" ".join(lines[start : start + rng.randint(3, 5)]))


def _task(rng: random.Random) -> Callable[[random.Random, Lexicon], Item]:
    return rng.choices(_GENERATORS, _WEIGHTS)[0]


def _turns(rng: random.Random) -> int:
    """Draw a number of turns: mostly 2 to 7, one in fifteen up to MAX_TURNS."""
    return rng.randint(8, MAX_TURNS) if rng.random() < 1 / 15 else rng.randint(2, 7)
