"""Reviews with a judgement: what the quickstart's `sentiment` is made of."""

# Word lists read best as text; shares of a draw need no names.

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.nano.recipe.tasks import TaskQuestion
from registry.nano.recipe.words import DAYS

if TYPE_CHECKING:
    import random

    from registry.nano.recipe.words import Lexicon

LABELS = ("positive", "negative")
PROMPT = "Positive or negative? {input}"

POSITIVE = (
    "wonderful superb delightful brilliant excellent lovely fantastic amazing impressive enjoyable "
    "pleasant flawless stunning refreshing"
).split()
NEGATIVE = (
    "awful dreadful horrible disappointing miserable pathetic clumsy useless annoying mediocre "
    "shabby tedious sloppy bland"
).split()
_PRAISE = (
    "I loved every minute of it",
    "I would gladly come back",
    "We enjoyed it a lot",
    "It made me smile",
    "It was worth every coin",
    "My family adored it",
)
_BLAME = (
    "I hated every minute of it",
    "I will never come back",
    "We regretted it at once",
    "It made me angry",
    "It was a waste of money",
    "My family despised it",
)
_SUBJECTS = {
    "film": ("plot", "acting", "music", "ending", "camera work", "dialogue"),
    "book": ("story", "style", "cover", "first chapter", "hero", "translation"),
    "cafe": ("soup", "coffee", "service", "cake", "terrace", "waiter"),
    "hotel": ("room", "breakfast", "view", "bed", "staff", "lobby"),
    "phone": ("screen", "battery", "sound", "keyboard", "design", "software"),
    "concert": ("singer", "sound", "hall", "drummer", "last song", "light show"),
    "museum": ("guide", "entrance", "collection", "garden", "shop", "building"),
    "course": ("teacher", "material", "pace", "homework", "classroom", "final lesson"),
}
_NEUTRAL = (
    "We went there on {day}.",
    "I was there with {name}.",
    "{name} told me about it.",
    "It is in {town}.",
    "We came by train from {town}.",
    "I bought it on {day}.",
    "It was the second time for {name}.",
    "I took my {noun} along.",
    "It rained on {day}.",
)
_OPENERS = ("", "", "", "Well,", "Honestly,", "To be fair,", "In short:", "My view:")
_DEGREES = ("", "", "really ", "very ", "simply ", "quite ", "truly ")


def review(rng: random.Random, words: Lexicon) -> TaskQuestion:
    """Write a review of two judgements of one kind, half of them with some neutral talk."""
    label = rng.choice(LABELS)
    good = label == "positive"
    subject = rng.choice(tuple(_SUBJECTS))
    aspect = rng.choice(_SUBJECTS[subject])
    adjective, other = rng.sample(POSITIVE if good else NEGATIVE, 2)
    degree = rng.choice(_DEGREES)
    judged = rng.choice(
        (
            f"The {aspect} was {degree}{adjective}.",
            f"I found the {aspect} {degree}{adjective}.",
            f"The {aspect} seemed {adjective} to {words.name(rng)}.",
        )
    )
    verdict = rng.choice(
        (
            f"{rng.choice(_PRAISE if good else _BLAME)}.",
            f"What {_a(other)} {subject}.",
            f"It is {_a(other)} {subject}.",
        )
    )
    sentences = [judged, verdict, _neutral(rng, words)][: 2 + (rng.random() < 0.5)]
    if rng.random() < 0.5:
        rng.shuffle(sentences)
    opener = rng.choice(_OPENERS)
    text = " ".join(sentences)
    return TaskQuestion(f"{opener} {text[0].lower() + text[1:]}" if opener else text, label)


def _neutral(rng: random.Random, words: Lexicon) -> str:
    return rng.choice(_NEUTRAL).format(
        day=rng.choice(DAYS), name=words.name(rng), town=words.town(rng), noun=words.noun(rng)
    )


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
