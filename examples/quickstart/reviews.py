"""Reviews with a judgement: what the quickstart's `sentiment` is made of."""

# Word lists read best as text; shares of a draw need no names.

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.nano.recipe.tasks import Item
from registry.nano.recipe.words import DAYS

if TYPE_CHECKING:
    import random

    from registry.nano.recipe.words import Lexicon

LABELS = ("positive", "negative")
PROMPT = "Is this review positive or negative? {input}"

POSITIVE = (
    "wonderful superb delightful charming brilliant excellent lovely splendid fantastic marvellous "
    "amazing beautiful perfect impressive enjoyable gorgeous outstanding remarkable pleasant "
    "magnificent terrific fabulous graceful stunning flawless adorable thrilling refreshing"
).split()
NEGATIVE = (
    "terrible awful dreadful boring horrible poor disappointing dull miserable pathetic lousy "
    "clumsy ugly useless annoying mediocre unpleasant shabby dismal tedious sloppy appalling "
    "horrid bland atrocious tiresome frustrating wretched"
).split()
_PRAISE = (
    "I loved every minute of it",
    "I would gladly come back",
    "We enjoyed it a lot",
    "I recommend it to everyone",
    "It made me smile",
    "It was worth every coin",
    "It went beyond what I hoped for",
    "My family adored it",
    "Five stars from me",
)
_BLAME = (
    "I hated every minute of it",
    "I will never come back",
    "We regretted it at once",
    "I warn everyone against it",
    "It made me angry",
    "It was a waste of money",
    "It fell short of what I hoped for",
    "My family despised it",
    "One star from me",
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


def review(rng: random.Random, words: Lexicon) -> Item:
    """Write a review of two or three judgements of one kind, with some neutral talk."""
    label = rng.choice(LABELS)
    good = label == "positive"
    subject = rng.choice(tuple(_SUBJECTS))
    aspects = rng.sample(_SUBJECTS[subject], 2)
    adjectives = rng.sample(POSITIVE if good else NEGATIVE, 3)
    judged = [
        f"The {aspects[0]} was {rng.choice(_DEGREES)}{adjectives[0]}",
        rng.choice(
            (
                f"the {aspects[1]} was {rng.choice(_DEGREES)}{adjectives[1]}",
                f"I found the {aspects[1]} {rng.choice(_DEGREES)}{adjectives[1]}",
                f"the {aspects[1]} seemed {adjectives[1]} to {words.name(rng)}",
            )
        ),
    ]
    sentences = [
        f"{' and '.join(judged)}.",
        _neutral(rng, words),
        rng.choice(
            (
                f"{rng.choice(_PRAISE if good else _BLAME)}.",
                f"What {_a(adjectives[2])} {subject}.",
                f"It is {_a(adjectives[2])} {subject}.",
            )
        ),
    ]
    if rng.random() < 0.5:
        rng.shuffle(sentences)
    opener = rng.choice(_OPENERS)
    text = " ".join(sentences)
    return Item(f"{opener} {text[0].lower() + text[1:]}" if opener else text, label)


def _neutral(rng: random.Random, words: Lexicon) -> str:
    return rng.choice(_NEUTRAL).format(
        day=rng.choice(DAYS), name=words.name(rng), town=words.town(rng), noun=words.noun(rng)
    )


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
