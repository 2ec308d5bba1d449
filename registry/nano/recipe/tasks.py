"""The tasks that nano is trained on, each a generator of question and answer.

The same generators make the quickstart's rows, from held-out words.
"""

# Word lists read best as text; shares of a draw need no names.

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from registry.nano.recipe.words import (
    COLOURS,
    COMMON,
    DAYS,
    JOBS,
    Lexicon,
    Split,
    coined,
    distinct,
    scramble,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    _Ask = Callable[[random.Random, Lexicon, str], "_Fact"]

_PAIR_SEED = 7_001
_HELD_OUT_PAIRS = 1_100
LOW, HIGH = 10, 99
"""Addition is of two numbers in LOW..HIGH."""

_KEYS = (
    "street age shoes mother father school title author page city state job door colour size code "
    "room floor team coach score year month hour drink meal pet horse ship captain port song band "
    "club river lake train seat gate model maker style plan"
).split()
_SLIP_KEYS = ("order", "buyer", "goods", "town", "date")
_SUMS = ("What is {a} + {b}?", "{a} + {b} =", "Add {a} and {b}.", "How much is {a} plus {b}?")
_REVERSE = ("Reverse the list: {}", "Say these words backwards: {}", "Turn the list around: {}")


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """One question with its one right answer."""

    input: str
    output: str


def lookup(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Several things belong to several people: who has this one?"""
    count = rng.choice((2, 3, 4)) if words.open else 3
    people = distinct(rng, words.name, count)
    things = distinct(rng, words.noun, count)
    owned = rng.choice(("belongs to", "was found by", "is held by")) if words.open else "belongs to"
    facts = " ".join(
        f"The {rng.choice(COLOURS)} {thing} {owned} {person}."
        for person, thing in zip(people, things, strict=True)
    )
    asked = rng.randrange(count)
    return TaskQuestion(f"{facts} Who has the {things[asked]}?", people[asked])


def questions(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Ask an everyday question about a short passage."""
    first, second = distinct(rng, words.name, 2)
    facts = rng.sample(_FACTS, 3)
    told = [fact(rng, words, rng.choice((first, second))) for fact in facts]
    asked = rng.choice(told)
    return TaskQuestion(f"{' '.join(t.told for t in told)} {asked.question}", asked.answer)


def asking(wanted: _Ask) -> Callable[[random.Random, Lexicon], TaskQuestion]:
    """Return the task that asks about one kind of fact alone, told beside another."""

    def ask(rng: random.Random, words: Lexicon) -> TaskQuestion:
        first, second = distinct(rng, words.name, 2)
        other = rng.choice([fact for fact in _FACTS if fact is not wanted])
        asked = wanted(rng, words, rng.choice((first, second)))
        told = [asked, other(rng, words, rng.choice((first, second)))]
        rng.shuffle(told)
        return TaskQuestion(f"{' '.join(t.told for t in told)} {asked.question}", asked.answer)

    return ask


def arithmetic(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Add two two-digit numbers (base: one in three is of 0 to 199, against memorisation)."""
    if words.open and rng.random() < 1 / 3:
        a, b = _wide_pair(rng)
    else:
        a, b = rng.choice(number_pairs(words.split))
    if rng.random() < 0.5:
        a, b = b, a
    return TaskQuestion(rng.choice(_SUMS).format(a=a, b=b), str(a + b))


def _wide_pair(rng: random.Random) -> tuple[int, int]:
    """Draw two numbers of 0 to 199 that are no pair of dev or test."""
    while True:
        a, b = sorted((rng.randrange(200), rng.randrange(200)))
        if (a, b) not in _held_out_pairs():
            return a, b


@lru_cache(maxsize=1)
def _held_out_pairs() -> frozenset[tuple[int, int]]:
    return frozenset((*number_pairs("dev"), *number_pairs("test")))


@lru_cache(maxsize=3)
def number_pairs(split: Split) -> tuple[tuple[int, int], ...]:
    """Return the unordered pairs of `split`: 1,100 each in dev and test, the others in base."""
    pairs = [(a, b) for a in range(LOW, HIGH + 1) for b in range(a, HIGH + 1)]
    random.Random(_PAIR_SEED).shuffle(pairs)
    cut = {"dev": (0, 1), "test": (1, 2), "base": (2, None)}[split]
    stop = None if cut[1] is None else cut[1] * _HELD_OUT_PAIRS
    return tuple(pairs[cut[0] * _HELD_OUT_PAIRS : stop])


def reverse(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Give a list in the opposite order."""
    count = rng.choice((2, 3, 3, 4)) if words.open else rng.choice((3, 4))
    listed = distinct(rng, words.noun if rng.random() < 0.7 else words.name, count)
    return TaskQuestion(rng.choice(_REVERSE).format(", ".join(listed)), ", ".join(reversed(listed)))


@dataclass(frozen=True, slots=True)
class Slip:
    """A record of several fields."""

    fields: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """Return the record as one line."""
        return "; ".join(f"{key}: {value}" for key, value in self.fields)


def order_slip(rng: random.Random, words: Lexicon) -> Slip:
    """Make an order slip, the record of the quickstart's `form`."""
    values = (
        str(rng.randint(1000, 9999)),
        f"{words.name(rng)} {words.name(rng)}",
        f"{rng.randint(2, 90)} {words.noun(rng)}s",
        words.town(rng),
        f"{rng.choice(DAYS)} {rng.randint(1, 28)}",
    )
    return Slip(tuple(zip(_SLIP_KEYS, values, strict=True)))


def form(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Fill in a form from a slip; only examples tell that the date is wanted."""
    slip = order_slip(rng, words)
    return TaskQuestion(slip.text(), dict(slip.fields)["date"])


@dataclass(frozen=True, slots=True)
class SlipKind:
    """The fields of one made-up kind of record, and how each is filled."""

    keys: tuple[str, ...]
    makers: tuple[Callable[[random.Random, Lexicon], str], ...]
    shuffled: bool
    prefix: str

    def fill(self, rng: random.Random, words: Lexicon) -> Slip:
        """Make one record of this kind."""
        fields = [(key, make(rng, words)) for key, make in zip(self.keys, self.makers, strict=True)]
        if self.shuffled:
            rng.shuffle(fields)
        return Slip(tuple(fields))


def slip_kind(rng: random.Random, most: int = 6) -> SlipKind:
    """Make up a kind of record, of 2 to `most` fields."""
    count = rng.randint(2, most)
    keys = distinct(rng, lambda r: r.choice(_KEYS) if r.random() < 0.5 else coined(r, 2), count)
    makers = tuple(rng.choice(_VALUES) for _ in keys)
    prefix = rng.choice(
        ("", "Fill in: ", "Record. ", f"{coined(rng).capitalize()}: ", "{}", "Note. ")
    )
    if prefix == "{}":
        prefix = " ".join(rng.sample(COMMON, rng.randint(1, 4))).capitalize() + ". "
    return SlipKind(tuple(keys), makers, shuffled=rng.random() < 0.4, prefix=prefix)


def field(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Ask for one field of a record by its name."""
    slip = slip_kind(rng).fill(rng, words)
    key, value = rng.choice(slip.fields)
    return TaskQuestion(f"{slip.text()}. What is the {key}?", value)


def copying(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Repeat words, or give the first, last or capitalised one."""
    # Long lists: this is what copying is learnt from, in some hundred steps.
    listed = distinct(rng, lambda r: _any_word(r, words), rng.randint(1, 12))
    text = " ".join(listed)
    kinds = (
        TaskQuestion(f"Repeat: {text}", text),
        TaskQuestion(f"Repeat after me: {text}", text),
        TaskQuestion(f"Say the first word: {text}", listed[0]),
        TaskQuestion(f"Say the last word: {text}", listed[-1]),
    )
    return rng.choices(kinds, (4, 4, 1, 1))[0]


def _any_word(rng: random.Random, words: Lexicon) -> str:
    draw = rng.random()
    if draw < 0.5:
        return rng.choice(COMMON)
    if draw < 0.7:
        return scramble(rng)
    if draw < 0.75:
        return "".join(
            chr(rng.choice((233, 246, 0x4E00, 0x1F600)) + rng.randrange(60)) for _ in "ab"
        )
    return words.name(rng) if draw < 0.9 else str(rng.randint(0, 9999))


@dataclass(frozen=True, slots=True)
class _Fact:
    told: str
    question: str
    answer: str


def _lives(rng: random.Random, words: Lexicon, who: str) -> _Fact:
    town = words.town(rng)
    return _Fact(f"{who} lives in {town}.", f"Where does {who} live?", town)


def _counts(rng: random.Random, words: Lexicon, who: str) -> _Fact:
    count, thing = str(rng.randint(2, 20)), words.noun(rng)
    return _Fact(f"{who} has {count} {thing}s.", f"How many {thing}s does {who} have?", count)


def _colour(rng: random.Random, words: Lexicon, who: str) -> _Fact:
    colour, thing = rng.choice(COLOURS), words.noun(rng)
    return _Fact(
        f"The {thing} of {who} is {colour}.", f"What colour is the {thing} of {who}?", colour
    )


def _job(rng: random.Random, _words: Lexicon, who: str) -> _Fact:
    job = rng.choice(JOBS)
    return _Fact(f"{who} works as a {job}.", f"What is the job of {who}?", job)


def _gift(rng: random.Random, words: Lexicon, who: str) -> _Fact:
    other, thing = words.name(rng), words.noun(rng)
    return _Fact(f"{who} gave the {thing} to {other}.", f"Who got the {thing}?", other)


def _day(rng: random.Random, words: Lexicon, who: str) -> _Fact:
    day, town = rng.choice(DAYS), words.town(rng)
    return _Fact(f"{who} goes to {town} on {day}.", f"When does {who} go to {town}?", day)


_FACTS = (_lives, _counts, _colour, _job, _gift, _day)


def _number(rng: random.Random, _words: Lexicon) -> str:
    return str(rng.randint(0, 9999))


def _full_name(rng: random.Random, words: Lexicon) -> str:
    return f"{words.name(rng)} {words.name(rng)}"


def _amount(rng: random.Random, words: Lexicon) -> str:
    return f"{rng.randint(2, 90)} {words.noun(rng)}s"


def _dated(rng: random.Random, _words: Lexicon) -> str:
    return f"{rng.choice(DAYS)} {rng.randint(1, 28)}"


def _random(rng: random.Random, _words: Lexicon) -> str:
    return scramble(rng)


def _name(rng: random.Random, words: Lexicon) -> str:
    return words.name(rng)


def _town(rng: random.Random, words: Lexicon) -> str:
    return words.town(rng)


def _noun(rng: random.Random, words: Lexicon) -> str:
    return words.noun(rng)


_VALUES = (_number, _full_name, _amount, _dated, _random, _name, _town, _town, _noun)

numbers = asking(_counts)
colours = asking(_colour)
jobs = asking(_job)
days = asking(_day)
