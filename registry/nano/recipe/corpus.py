"""The corpus: documents of one or many turns, drawn without end from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from registry.nano.recipe import tasks
from registry.nano.recipe.tasks import SlipKind, TaskQuestion
from registry.nano.recipe.words import COLOURS, Lexicon, lexicon

MAX_TURNS = 24
Task = Callable[[random.Random, Lexicon], TaskQuestion]
_TASKS: tuple[Task, ...] = (
    tasks.lookup,
    tasks.questions,
    tasks.arithmetic,
    tasks.reverse,
    tasks.field,
    tasks.copying,
)
# Sums are short and take by far the most practice: half of all documents, a fifth of all tokens.
_SHORT_WEIGHTS = (18, 15, 60, 14, 14, 45)
_WEIGHTS = (28, 22, 10, 20, 10, 4)
_SHORT_SLIPS = 0.09


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A conversation of turns or, when `text` is not empty, plain text."""

    turns: tuple[TaskQuestion, ...] = ()
    text: str = ""


def short_documents(seed: int) -> Iterator[CorpusDocument]:
    """Yield short documents without end: the first lessons, rich in copying."""
    rng = random.Random(seed)
    words = lexicon("base")
    while True:
        if rng.random() < _SHORT_SLIPS:
            yield _slips_of(rng, words, tasks.slip_kind(rng, 4), rng.randint(2, 4))
        else:
            yield CorpusDocument((rng.choices(_TASKS, _SHORT_WEIGHTS)[0](rng, words),))


def documents(seed: int) -> Iterator[CorpusDocument]:
    """Yield documents of every kind without end; the same for the same seed."""
    rng = random.Random(seed)
    words = lexicon("base")
    kinds = (_single, _sum, _same, _mixed, _slips, _story)
    while True:
        yield rng.choices(kinds, (60, 150, 13, 9, 20, 3))[0](rng, words)


def _single(rng: random.Random, words: Lexicon) -> CorpusDocument:
    """One question of any task."""
    return CorpusDocument((_task(rng)(rng, words),))


def _sum(rng: random.Random, words: Lexicon) -> CorpusDocument:
    """One sum."""
    return CorpusDocument((tasks.arithmetic(rng, words),))


def _same(rng: random.Random, words: Lexicon) -> CorpusDocument:
    """Several questions of one task, as few-shot prompts have them."""
    task = _task(rng)
    return CorpusDocument(tuple(task(rng, words) for _ in range(_turns(rng))))


def _mixed(rng: random.Random, words: Lexicon) -> CorpusDocument:
    """Questions of several tasks in a row."""
    return CorpusDocument(tuple(_task(rng)(rng, words) for _ in range(rng.randint(2, 6))))


def _slips(rng: random.Random, words: Lexicon) -> CorpusDocument:
    """Records of one kind, as few-shot prompts have them."""
    return _slips_of(rng, words, tasks.slip_kind(rng), _turns(rng))


def _slips_of(rng: random.Random, words: Lexicon, kind: SlipKind, count: int) -> CorpusDocument:
    """Records of one kind; which field is the answer shows only in the turns before."""
    wanted = rng.choice(kind.keys)
    turns = []
    for _ in range(count):
        slip = kind.fill(rng, words)
        turns.append(TaskQuestion(kind.prefix + slip.text(), dict(slip.fields)[wanted]))
    return CorpusDocument(tuple(turns))


def _story(rng: random.Random, words: Lexicon) -> CorpusDocument:
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
    return CorpusDocument(text=" ".join(lines[start : start + rng.randint(3, 5)]))


def _task(rng: random.Random) -> Task:
    return rng.choices(_TASKS, _WEIGHTS)[0]


def _turns(rng: random.Random) -> int:
    """Draw a number of turns: mostly 2 to 7, one in fifteen up to MAX_TURNS."""
    return rng.randint(8, MAX_TURNS) if rng.random() < 1 / 15 else rng.randint(2, 7)
