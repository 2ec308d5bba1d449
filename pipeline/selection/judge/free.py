"""Rows of free datasets: which gap they are like, and what the base itself says to the others.

Nobody says what such a row is for. One that is as near to a gap's failures as these are to each
other may be chosen for that gap and is never replayed; any other may be replayed, with the base's
own answer, and is never chosen for a gap.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from evals.tasks.prompts import render_messages
from pipeline.measure.measure import zero_shot
from pipeline.selection.candidates import free_datasets
from pipeline.selection.judge.answers import UNUSABLE, why_unusable
from pipeline.selection.judge.likeness import above_floor, floor_of, owners
from pipeline.selection.judge.readings import passage_of, passage_of_item
from pipeline.selection.judge.terms import Terms
from pipeline.selection.replay import MOST_SCORED, PassingRow
from pipeline.selection.selection import answer_of, asked_of
from pipeline.spec.subjects import subject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from evals.tasks.capability import Item
    from pipeline.selection.candidates import Candidates
    from pipeline.selection.judge.readings import Readings
    from registry.datasets.versions.row import Row

_MOST_FAILURES = 100
"""Failures that likeness is measured by."""

_MOST_ASKED = 3
"""Rows asked for each that is wanted; a base that mostly refuses isn't asked for ever."""

_LEAST_ASKED = 24


class FreeRows:
    """The rows of the pool's free datasets, and which gap each is like.

    Args:
        candidates: where they are.
        readings: who asks the base.
        failures: gap -> the dev items that the base fails; the same in every round.
    """

    def __init__(
        self,
        candidates: Candidates,
        readings: Readings,
        failures: Mapping[str, Sequence[Item]],
    ) -> None:
        """See the class."""
        self._candidates = candidates
        self._readings = readings
        names = free_datasets(candidates.ws)
        self._by_dataset = {name: candidates.fitting(candidates.rows(name), name) for name in names}
        in_turn = zip_longest(*self._by_dataset.values())
        self._rows = [row for turn in in_turn for row in turn if row is not None]
        texts = [passage_of(row).text for row in self._rows]
        both = {name: self._forms(name, items) for name, items in failures.items()}
        failed = [text for forms in both.values() for form in forms for text in form]
        terms = Terms.of([*texts, *failed])
        vectors = terms.vectors(texts)
        self._labels = {name: frozenset(candidates.labels_of(name)) for name in failures}
        forms = {name: [*map(terms.vectors, found)] for name, found in both.items()}
        self.floors = {
            name: tuple(floor_of(form, vectors) for form in found) for name, found in forms.items()
        }
        above = {
            name: above_floor(vectors, found, self.floors[name]) for name, found in forms.items()
        }
        self._owners = dict(zip((row.uid for row in self._rows), owners(above), strict=False))

    def like(self, name: str, most: int | None, without: Collection[int]) -> list[Row]:
        """Return rows that are like gap `name` and like no other more, at most so many.

        In the order of their hashes. To a choice they answer with one of its labels.
        """
        labels = self._labels[name]
        found = [
            row
            for row in self._rows
            if self._owners.get(row.uid) == name
            and row.uid not in without
            and (not labels or answer_of(row) in labels)
        ]
        return found[:most]

    def answered(self, dataset: str, wanted: int, without: Collection[int]) -> list[PassingRow]:
        """Return rows of `dataset` with the base's own answers, about as many as `wanted`.

        In the order of their hashes, so that a larger number begins with the same rows. What is
        passed over is set aside with its reason.
        """
        most = max(_LEAST_ASKED, _MOST_ASKED * wanted)
        found: list[PassingRow] = []
        askable = self._askable(dataset, without)
        while len(found) < wanted and most > 0:
            chunk = list(islice(askable, _LEAST_ASKED))
            if not chunk:
                break
            most -= len(chunk)
            found += self._own(chunk, dataset)
        return found

    def _askable(self, dataset: str, without: Collection[int]) -> Iterator[Row]:
        """Yield rows that ask something and are like no gap; at most 3,200 are looked at."""
        for row in self._by_dataset[dataset][:MOST_SCORED]:
            if row.uid in without:
                continue
            said = (name for name, labels in self._labels.items() if answer_of(row) in labels)
            owner = next(said, self._owners.get(row.uid))
            if owner is not None:
                why = f"is like what {owner} fails: replayed, it would keep that so"
                self._candidates.set_aside(row, "like a gap", why)
            elif not asked_of(row):
                why = "has no question that can be asked: plain text, or an answer with tools"
                self._candidates.set_aside(row, "nothing to ask", why)
            else:
                yield row

    def _own(self, rows: Sequence[Row], dataset: str) -> list[PassingRow]:
        found = []
        questions = [asked_of(row) for row in rows]
        said = self._readings.own_answers(questions, dataset)
        for row, question, own in zip(rows, questions, said, strict=True):
            if own is None:
                why = "can't be asked with room for an answer"
                self._candidates.set_aside(row, "nothing to ask", why)
                continue
            why_not = why_unusable(own.text, question[-1]["content"], ended=own.ended)
            if why_not is None:
                found.append(PassingRow(row, own.text.strip()))
            else:
                self._candidates.set_aside(row, why_not, f"the base's answer {UNUSABLE[why_not]}")
        return found

    def _forms(self, name: str, items: Sequence[Item]) -> list[list[str]]:
        """Return items as they stand, and as they are asked where that differs.

        A row of a free dataset may have the prompt in it, or not: without this, a prompt would make
        it unlike what it asks.
        """
        plain, prompted = [], []
        arm = zero_shot(subject(self._candidates.ws.spec, name))
        for item in items[:_MOST_FAILURES]:
            plain.append(passage_of_item(item))
            turns = render_messages(arm, item, (), ("…",))
            asked = "\n".join(str(turn["content"]) for turn in turns)
            prompted.append(replace(plain[-1], asked=asked))
        forms = [plain] if plain == prompted else [plain, prompted]
        return [[one.text for one in form] for form in forms]
