"""What texts are compared by: one Unicode form of each, its tokens, and runs of so many words.

A token is a word, a punctuation mark, or, where a script doesn't put spaces between words, one
character. How many of those make a word is measured on translations of the same sentences: three
words of English are about four characters of Chinese or Japanese, and six of Thai, so that a text
with one word changed is as near to itself in each.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HAN_AND_KANA = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Characters of Chinese and Japanese, as the inside of a regular expression's class."""

# Thai, Lao, Burmese and Khmer: letters and the marks on them, which are no \w to Python.
_SOUTH_EAST = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109f"
    "\u1780-\u17d3\u17d7\u17dc\u17dd"
)
_UNSPACED = re.compile(f"[{HAN_AND_KANA}{_SOUTH_EAST}]")
_ONE_WORD = rf"[^\W{HAN_AND_KANA}{_SOUTH_EAST}]+"
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_UNSPACED_WORD = re.compile(rf"{_UNSPACED.pattern}|{_ONE_WORD}")
_UNSPACED_TOKEN = re.compile(rf"{_UNSPACED_WORD.pattern}|[^\w\s]")

# What takes no place: zero-width spaces and joiners, marks of direction, soft hyphens, variation
# selectors, byte-order marks, tags.
_NO_WIDTH = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e0fff]"
)
_FULL = 4  # parts of a word
_OF_HAN, _OF_THAI = 3, 2


def one_form(text: str) -> str:
    """Return the text in the form that texts are compared in: NFKC, without zero-width characters.

    Composed or decomposed, full width or half: what reads the same is the same.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _NO_WIDTH.sub("", text))


def words_of(text: str) -> list[str]:
    """Return the words of a text, lower-cased, without punctuation."""
    said = one_form(text).lower()
    return (_UNSPACED_WORD if _has_unspaced(said) else _WORD).findall(said)


def tokens_of(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, lower-cased."""
    said = one_form(text).lower()
    return (_UNSPACED_TOKEN if _has_unspaced(said) else _TOKEN).findall(said)


def runs_of_words(tokens: Sequence[str], count: int) -> Iterator[str]:
    """Yield each run of tokens that is `count` words long; none where all of them are fewer."""
    if not _has_unspaced("".join(tokens)):
        yield from map(" ".join, zip(*(tokens[at:] for at in range(count)), strict=False))
        return
    parts = [_parts(token) for token in tokens]
    end = held = 0
    for start, own in enumerate(parts):
        while held < count * _FULL and end < len(parts):
            held += parts[end]
            end += 1
        if held < count * _FULL:
            return
        yield " ".join(tokens[start:end])
        held -= own


def _has_unspaced(text: str) -> bool:
    return not text.isascii() and _UNSPACED.search(text) is not None


def _parts(token: str) -> int:
    if token.isascii() or _UNSPACED.match(token) is None:
        return _FULL
    return _OF_THAI if ord(token) < ord("\u2000") else _OF_HAN
