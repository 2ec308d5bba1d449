"""Write the assistant's data: `python examples/assistant/make_data.py [DIR]`.

Six guards of what SmolLM2-135M-Instruct can do, and orders that it is to put into a fixed form.
Every file is made from a seed, byte for byte the same on any machine. A word (a country, a noun, a
name) that is in one split is in no other; names of orders in dev and test are in no row to train
on.
"""

from __future__ import annotations

import json
import random
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import words  # beside this file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).resolve().parent
SIZES = {"dev": 300, "test": 300, "train": 150}
SHARES = {"dev": 0.4, "test": 0.4, "train": 0.2}
TRAIN_ORDERS = 600
OPTIONS = 4

Item = dict[str, Any]


def pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of a list such as `France=Paris New_Zealand=Wellington`."""
    parted = (word.replace("_", " ").partition("=") for word in text.split())
    return [(first, second) for first, _, second in parted]


def disjoint(known: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs none of whose words an earlier pair has."""
    seen: set[str] = set()
    kept = []
    for pair in known:
        if not seen & set(pair):
            kept.append(pair)
            seen |= set(pair)
    return kept


def choice(rng: random.Random, question: str, answer: str, others: Sequence[str]) -> Item:
    """Return a question with four options of its own, in a drawn order."""
    wrong = rng.sample([one for one in others if one != answer], OPTIONS - 1)
    options = rng.sample([answer, *wrong], OPTIONS)
    return {"input": question, "output": answer, "options": options}


def facts(rng: random.Random, part: Sequence[tuple[str, str]]) -> list[Item]:
    """Capitals, and what a country's people are called, each in two questions and backwards."""
    people = dict(pairs(words.PEOPLE))
    countries, capitals = zip(*pairs(words.CAPITALS), strict=True)
    made = []
    for country, capital in part:
        called = people[country]
        made.append(choice(rng, f"What is the capital of {country}?", capital, capitals))
        made.append(choice(rng, f"Which of these cities is in {country}?", capital, capitals))
        others = list(people.values())
        made.append(choice(rng, f"What are people from {country} called?", called, others))
        made.append(choice(rng, f"If you were born in {country}, you are", called, others))
        backwards = (
            f"Which country has {capital} as its capital?",
            f"I live in {capital}. Which country do I live in?",
            f"Where do {called} people come from?",
            f"My neighbours are {called}. Which country were they born in?",
        )
        made.extend(choice(rng, asked, country, countries) for asked in backwards)
    return made


def opposites(rng: random.Random, part: Sequence[tuple[str, str]]) -> list[Item]:
    """Words and their opposites, both ways and in two questions."""
    known = sorted({word for pair in pairs(words.OPPOSITES) for word in pair})
    made = []
    for pair in part:
        for word, answer in (pair, pair[::-1]):
            others = [one for one in known if one != word]
            made.append(choice(rng, f'What is the opposite of "{word}"?', answer, others))
            made.append(choice(rng, f"Which word means the opposite of {word}?", answer, others))
    return made


def categories(rng: random.Random, part: Sequence[tuple[str, str]]) -> list[Item]:
    """What kind of thing a word names, in three questions."""
    made = []
    for word, kind in part:
        thing = word if kind in words.NO_ARTICLE else f"{_article(word)} {word}"
        for question, said in (
            (f"What is {thing}?", f"{thing[0].upper()}{thing[1:]} is"),
            (f"What type of thing is {thing}?", "It is"),
            (f"Please tell me what {thing} is.", f"{thing[0].upper()}{thing[1:]} is"),
        ):
            kinds = {one: f"{said} {_article(one)} {one}." for one in words.CATEGORIES}
            made.append(choice(rng, question, kinds[kind], list(kinds.values())))
    return made


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """Return the plural of an English noun of words.NOUNS."""
    if noun in words.IRREGULAR:
        return words.IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def plurals(rng: random.Random, part: Sequence[tuple[str, str]]) -> list[Item]:
    """One noun, and several of it in four questions, among forms that look like it."""
    made: list[Item] = []
    for noun, several in part:
        forms = [noun, f"{noun}'s", f"{noun}s", f"{noun}es", f"{noun}en"]
        questions = (
            f'What is the plural of "{noun}"?',
            f"Which is the plural form of {noun}?",
            f"Which word means more than one {noun}?",
            f"There is one {noun}. If one more comes, there are two",
        )
        made.extend(choice(rng, asked, several, forms) for asked in questions)
    return made


def repeats(rng: random.Random, part: Sequence[tuple[str, str]]) -> list[Item]:
    """To follow a format: a sentence, and nothing else."""
    made = []
    for name, _ in part:
        for noun in rng.sample(words.NOUNS.split(), 24):
            said = f"{name} has a {rng.choice(words.ADJECTIVES.split())} {noun}."
            made.append({"input": f"Repeat this sentence: {said}", "output": said})
    return made


def chats(rng: random.Random, part: Sequence[tuple[str, str]]) -> list[Item]:
    """A few turns, the last of which asks for a word of the first."""
    made = []
    for name, _ in part:
        for liked in rng.sample(words.LIKES.split(), 24):
            turns = [
                ("user", f"Hi, my name is {name} and I like {liked}."),
                ("assistant", f"Nice to meet you, {name}!"),
                ("user", "What is my name?"),
                ("assistant", name),
            ]
            made.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    return made


def orders(rng: random.Random, part: Sequence[tuple[str, str]]) -> list[Item]:
    """What people order, and the same as JSON with the keys count, size, item and name."""
    made = []
    for (name, _), dish, size in product(part, words.DISHES, words.ORDER_SIZES):
        count = rng.randint(1, len(words.COUNTS))
        several = f"{dish}s" if count > 1 else dish
        asked = rng.choice(words.ORDERS).format(
            count=words.COUNTS[count - 1], size=size, item=several, name=name
        )
        order = {"count": count, "size": size, "item": dish, "name": name}
        made.append({"input": asked, "output": json.dumps(order)})
    return made


def names() -> list[tuple[str, str]]:
    """Return the names, each alone."""
    return [(name, "") for name in words.NAMES.split()]


GUARDS: dict[str, tuple[Callable[..., list[Item]], list[tuple[str, str]]]] = {
    "facts": (facts, pairs(words.CAPITALS)),
    "opposites": (opposites, disjoint(pairs(words.OPPOSITES))),
    "categories": (
        categories,
        [(word, kind) for kind, members in words.CATEGORIES.items() for word in members.split()],
    ),
    "plurals": (plurals, [(noun, plural(noun)) for noun in sorted(set(words.NOUNS.split()))]),
    "repeats": (repeats, names()),
    "chats": (chats, names()),
    "orders": (orders, names()),
}


def items(name: str) -> dict[str, list[Item]]:
    """Return the items of a guard or capability by split, no word in two of them."""
    make, known = GUARDS[name]
    rng = random.Random(name)
    mixed = rng.sample(known, len(known))
    found: dict[str, list[Item]] = {}
    for split, share in SHARES.items():
        count = round(len(known) * share)
        made = make(rng, mixed[:count])
        mixed = mixed[count:]
        size = TRAIN_ORDERS if (name, split) == ("orders", "train") else SIZES[split]
        unique = list({json.dumps(one): one for one in made}.values())
        found[split] = rng.sample(unique, min(size, len(unique)))
    return found


def write(folder: Path) -> None:
    """Write folder/NAME/SPLIT.jsonl for every guard, and the orders."""
    for name in GUARDS:
        for split, made in items(name).items():
            path = folder / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{json.dumps(one)}\n" for one in made), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data")
