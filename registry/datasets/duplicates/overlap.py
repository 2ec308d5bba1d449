"""Overlap of texts: what is said in training and asked in a dev or test set too.

Three kinds, the strongest first. *Exact*: the same row, or the same words in all that is said.
*Near-duplicate*: questions as near as ingest's clusters are. *13-gram*: 13 words in a row, lower-
cased, in one Unicode form, and of as many characters as are 13 words where words aren't spaced;
runs that more than 10 items share are a task's wording and count for nothing.

The items are kept in memory; rows are looked at some at a time, so that there may be any number.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from registry.datasets.duplicates.tokens import runs_of_words, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["exact", "near-duplicate", "13-gram"]
KINDS: tuple[Kind, ...] = ("exact", "near-duplicate", "13-gram")

WORDING = 10
"""How many items may share a run of 13 words before it is wording."""

_GRAM = 13


@dataclass(frozen=True, slots=True)
class RowWords:
    """What a training row says: its content's hash, all its words, and what it asks."""

    row_hash: str
    text: str
    question: str


@dataclass(frozen=True, slots=True)
class HeldOutItem:
    """One item of a dev or test set.

    Attributes:
        held_in: the set, such as `banking test`.
        where: its place: file and line, or the number of a document.
        row_hash: of its content; empty where it is no row.
        text: all its words.
        questions: what it asks, in each of its forms.
    """

    held_in: str
    where: str
    row_hash: str
    text: str
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Row `row` of those that were looked at is in item `item` too."""

    row: int
    item: int
    kind: Kind


class HeldOut:
    """Items to look for in rows."""

    def __init__(self, items: Sequence[HeldOutItem]) -> None:
        """Index the items; a number stands for each run of words."""
        self.items = tuple(items)
        self._hashes: dict[str, list[int]] = {}
        self._texts: dict[bytes, list[int]] = {}
        self._questions: dict[str, list[int]] = {}
        for position, item in enumerate(self.items):
            words = words_of(item.text)
            if item.row_hash:
                self._hashes.setdefault(item.row_hash, []).append(position)
            if words:
                self._texts.setdefault(_digest(words), []).append(position)
            for question in dict.fromkeys(item.questions):
                if question.strip():
                    self._questions.setdefault(question, []).append(position)

    @cached_property
    def _runs(self) -> tuple[dict[int, int], dict[int, list[int]]]:
        """The first item of each run of 13 words, and the others of the few that have several.

        Equal texts count as one item in what is wording.
        """
        seen: Counter[int] = Counter()
        for first, *_ in self._texts.values():
            seen.update({hash(gram) for gram in grams(self.items[first].text)})
        only: dict[int, int] = {}
        others: dict[int, list[int]] = {}
        for position, item in enumerate(self.items):
            for run in {hash(gram) for gram in grams(item.text)}:
                if seen[run] <= WORDING and only.setdefault(run, position) != position:
                    others.setdefault(run, []).append(position)
        return only, others

    def find(self, rows: Sequence[RowWords]) -> list[Overlap]:
        """Return what overlaps: for each row and set the strongest kind, with its first item."""
        found: dict[tuple[int, str], Overlap] = {}
        near = self.near([row.question for row in rows])
        for number, row in enumerate(rows):
            by_kind = (self.exact(row), near.get(number, ()), self._sharing(row.text))
            for kind, items in zip(KINDS, by_kind, strict=True):
                for item in items:
                    key = (number, self.items[item].held_in)
                    found.setdefault(key, Overlap(number, item, kind))
        return list(found.values())

    def refuses(self, row: RowWords) -> Kind | None:
        """Return what a row overlaps by, questions that are only near aside: ask `near` of many."""
        if self.exact(row):
            return "exact"
        return "13-gram" if self._sharing(row.text) else None

    def exact(self, row: RowWords) -> list[int]:
        """Return the items that are this row, or say the same words."""
        words = words_of(row.text)
        same = self._texts.get(_digest(words), []) if words else []
        return [*dict.fromkeys([*self._hashes.get(row.row_hash, []), *same])]

    def near(self, questions: Sequence[str]) -> dict[int, list[int]]:
        """Return the items that ask nearly the same, by the positions of the questions."""
        from registry.datasets.duplicates.near_duplicates import near_pairs

        corpus, asked = list(self._questions), [text for text in questions if text.strip()]
        if not corpus or not asked:
            return {}
        places = [place for place, text in enumerate(questions) if text.strip()]
        found: dict[int, list[int]] = {}
        for pair in near_pairs(asked, corpus):
            found.setdefault(places[pair.left], []).extend(self._questions[corpus[pair.right]])
        return {place: sorted(set(items)) for place, items in found.items()}

    def _sharing(self, text: str) -> list[int]:
        """Return the items with 13 words in a row of `text`; a number alone proves nothing."""
        only, others = self._runs
        items: dict[int, None] = {}
        for gram in grams(text):
            run = hash(gram)
            if run in only:
                for item in (only[run], *others.get(run, ())):
                    if item not in items and gram in grams(self.items[item].text):
                        items[item] = None
        return list(items)


def grams(text: str) -> Iterator[str]:
    """Yield each run of 13 words of `text`, lower-cased; none if it has fewer."""
    yield from runs_of_words(words_of(text), _GRAM)


def _digest(words: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode("utf-8", "replace"), digest_size=16).digest()
