"""Words for generated text, disjoint by split.

Names, towns and nouns of "dev" and "test" never occur in "base": what the model does with them it
does by rule and not from memory. "base" serves the base model's corpus and the quickstart's
training pools.
"""

# Word lists read best as text; shares of a draw need no names.

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Split = Literal["base", "dev", "test"]

COLOURS = (
    "red",
    "green",
    "blue",
    "yellow",
    "black",
    "white",
    "brown",
    "grey",
    "pink",
    "purple",
    "orange",
    "silver",
)
JOBS = (
    "baker",
    "miller",
    "potter",
    "weaver",
    "sailor",
    "farmer",
    "tailor",
    "painter",
    "carpenter",
    "gardener",
    "teacher",
    "fisher",
    "singer",
    "smith",
    "cook",
    "driver",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_NOUNS = (
    "kite lamp cup book drum boat cart chair table spoon knife fork plate bowl basket bucket "
    "ladder hammer needle button ribbon mirror candle pillow blanket carpet curtain bottle jar "
    "kettle pan pot stove clock watch bell whistle flute violin guitar trumpet piano ball doll "
    "puzzle wagon sled skate saddle rope chain anchor oar sail net hook rod spade rake hoe axe "
    "saw drill wrench bolt nail screw brick stone pebble shell feather leaf acorn apple pear plum "
    "cherry lemon melon peach carrot onion turnip bean potato tomato pumpkin goat cow horse "
    "donkey duck hen rabbit cat dog pig lamb calf pony parrot pigeon owl crow frog turtle beetle "
    "spider hat coat scarf glove boot shoe sock shirt jacket belt ring necklace bracelet coin "
    "stamp letter card map globe pencil brush crayon ruler notebook poster ticket wallet purse "
    "trunk crate barrel sack tent lantern torch compass telescope camera radio engine wheel "
    "pedal helmet bicycle scooter tractor truck wheelbarrow fence gate door window roof chimney "
    "shelf drawer cupboard sofa stool desk bench cradle swing kennel nest hive pond well bridge "
    "tower banner flag shield sword arrow crown cape mask wig fan umbrella cushion towel sponge "
    "teapot saucer napkin tray jug vase flowerpot thermos funnel sieve grater ladle"
).split()

COMMON = (
    "about above across after again air all almost along also always animal answer any around ask "
    "away back bad bank be beautiful because before begin best better big bill both boring bring "
    "broken build busy buy call can cancel careful cash change charge charming cheap check city "
    "clean clear close cloud cold come common complete cook correct cost could country cut dark "
    "day decide deep delight deliver different dirty do down dream drink dry dull each early easy "
    "eat empty end enjoy enough even evening every expect explain fail fall family far fast feel "
    "few fill film find fine fire first fix flat follow food forget form free fresh friend from "
    "full fun funny garden gentle get give glad go good great ground grow guess half happy hard "
    "hate have head hear heart heavy help here high hold home hope hot hour house idea if "
    "important in into joy just keep kind know large last late laugh learn leave left less life "
    "light like line list little live long look lost lot loud love low lucky make many market "
    "maybe mean meet mistake money month more morning most mother move much music must name near "
    "need never new next nice night noise none not note nothing now number of off often old on "
    "once one only open or order other our out over own paper part pass password pay people "
    "perfect phone place plan play please poor pretty price problem proud pull push put question "
    "quick quiet quite rain reach read ready really receive refund remember rest return rich "
    "right river road room round run sad safe same say school screen sea second see sell send "
    "service set share sharp ship short should show sign simple since sing sit sky sleep slow "
    "small smart smile soft some soon sorry sound speak special spend stand start stay still stop "
    "store story strange street strong such sun sure sweet take talk tall taste teach tell "
    "terrible thank their then there these thing think this those thought through tidy time tired "
    "to today together too town transfer travel tree true try turn ugly under until up update use "
    "useful usual very visit voice wait walk want warm waste water way weak wear weather week "
    "what when where which while who whole why wide wild will wind winter wish with without "
    "wonder wood word work world worry worth would write wrong year yes yet you young your"
).split()

_ONSETS = "b d f g h k l m n p r s t v z br dr kl pl tr st sh".split()
_VOWELS = "a e i o u".split()
_CODAS = ("", "", "", "", "n", "r", "s", "l")
_TOWN_ENDS = ("by", "ton", "ford", "wick", "holm", "dale")
_SEED = 20_260_101
_HELD_OUT = 700
_NAMES, _TOWNS = 8_000, 5_000


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The words of one split; `open` lets made-up words stand in for nouns (base only)."""

    split: Split
    names: tuple[str, ...]
    towns: tuple[str, ...]
    nouns: tuple[str, ...]
    open: bool

    def name(self, rng: random.Random) -> str:
        """Draw a first name."""
        if self.open and rng.random() < 0.1:
            return scramble(rng).capitalize()
        return rng.choice(self.names)

    def town(self, rng: random.Random) -> str:
        """Draw a town."""
        return rng.choice(self.towns)

    def noun(self, rng: random.Random) -> str:
        """Draw a thing, in the singular; every plural is formed with s."""
        if self.open and rng.random() < 0.4:
            return coined(rng)
        return rng.choice(self.nouns)


def coined(rng: random.Random, syllables: int | None = None) -> str:
    """Make up a word of 2 or 3 syllables."""
    count = syllables or rng.choice((2, 2, 3))
    return "".join(_syllable(rng, last=i == count - 1) for i in range(count))


def scramble(rng: random.Random) -> str:
    """Make up a string of 3 to 7 letters without any pattern."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7)))


def distinct(rng: random.Random, draw: Callable[[random.Random], str], count: int) -> list[str]:
    """Draw until there are `count` different words, in the order drawn."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw(rng)] = None
    return list(found)


@lru_cache(maxsize=3)
def lexicon(split: Split) -> Lexicon:
    """Return the words of `split`; no name, town or noun is in two of them."""
    rng = random.Random(_SEED)
    names = distinct(rng, lambda r: coined(r).capitalize(), _NAMES)
    towns = distinct(rng, lambda r: coined(r, 2).capitalize() + r.choice(_TOWN_ENDS), _TOWNS)
    nouns = list(_NOUNS)
    rng.shuffle(nouns)
    index = ("dev", "test", "base").index(split)
    return Lexicon(
        split,
        names=_part(names, index, _HELD_OUT),
        towns=_part(towns, index, _HELD_OUT),
        nouns=_part(nouns, index, 40),
        open=split == "base",
    )


def _part(words: list[str], index: int, held_out: int) -> tuple[str, ...]:
    """Cut `words` into dev, test and the rest (`index` 0, 1 and 2)."""
    stops = (held_out, 2 * held_out, len(words))
    return tuple(words[index * held_out : stops[index]])


def _syllable(rng: random.Random, *, last: bool) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if last else "")
