"""Rows of free datasets: which gap they are like, and what the base itself says to the others.

Nobody says what such a row is for. One that is as near to a gap's failures as these are to each
other may be chosen for that gap and is never replayed; any other may be replayed, with the base's
own answer, and is never chosen for a gap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from evals.tasks.prompts import render_messages
from pipeline.measure.measure import zero_shot
from pipeline.selection.candidates import free_datasets
from pipeline.selection.choose import about
from pipeline.selection.judge.answers import UNUSABLE, why_unusable
from pipeline.selection.judge.likeness import above_floor, floor_of, owners
from pipeline.selection.judge.readings import passage_of, passage_of_item
from pipeline.selection.replay import MOST_SCORED, PassingRow
from pipeline.selection.selection import answer_of, asked_of
from pipeline.spec.subjects import subject

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np

    from evals.engine.embed import Passage
    from evals.tasks.capability import Item
    from pipeline.selection.candidates import Candidates
    from pipeline.selection.choose import Matrix
    from pipeline.selection.judge.readings import Readings
    from registry.datasets.versions.row import Row

_CHUNK = 200
"""Rows of a dataset that are read at once; all are centred about the mean of the first ones."""

_TO_CHOOSE_AMONG = 2
"""Rows like a gap that are read for each that is wanted."""

_MOST_FAILURES = 100
"""Failures that likeness is measured by."""

_MOST_ASKED = 3
"""Rows asked for each that is wanted; a base that mostly refuses isn't asked for ever."""

_LEAST_ASKED = 24


class FreeReading(NamedTuple):
    """What the base made of one row."""

    vector: np.ndarray[tuple[int], np.dtype[np.float32]]
    asked: np.ndarray[tuple[int], np.dtype[np.float32]]
    loss: float


class FreeRows:
    """The rows of the pool's free datasets, read as far as they are needed.

    Args:
        candidates: where they are.
        readings: who reads them.
        failures: gap -> the dev items that the base fails; the same in every round.
        losses: gaps want rows of them whose answers are no labels, so that these are looked at.
    """

    def __init__(
        self,
        candidates: Candidates,
        readings: Readings,
        failures: Mapping[str, Sequence[Item]],
        *,
        losses: bool,
    ) -> None:
        """See the class."""
        self._candidates = candidates
        self._readings = readings
        self._losses = losses
        self._known: dict[int, FreeReading] = {}
        self._datasets = free_datasets(candidates.ws)
        sample = [row for name in self._datasets for row in self._fitting(name, 0, _CHUNK)]
        self._mean = self._vectors(sample).mean(axis=0) if sample else 0.0
        self._labels = {name: frozenset(candidates.labels_of(name)) for name in failures}
        self._forms = {name: self._both(name, items) for name, items in failures.items()}
        self.floors = {
            name: tuple(floor_of(form) for form in forms) for name, forms in self._forms.items()
        }

    def like(self, name: str, wanted: int, without: Collection[int]) -> list[Row]:
        """Return rows that are like gap `name` and like no other more, twice as many as `wanted`.

        In the order of their hashes; no more are read than it takes to find them. To a choice they
        answer with one of its labels.
        """
        labels = self._labels[name]
        found: list[Row] = []
        longest = max((len(self._candidates.rows(one)) for one in self._datasets), default=0)
        for start in range(0, longest, _CHUNK):
            for dataset in self._datasets:
                rows = self._fitting(dataset, start, _CHUNK)
                owned = zip(rows, self._owners(rows), strict=True)
                mine = [row for row, owner in owned if owner == name and row.uid not in without]
                found += [row for row in mine if not labels or answer_of(row) in labels]
            if len(found) >= _TO_CHOOSE_AMONG * wanted:
                break
        return found

    def centred(self, rows: Sequence[Row]) -> Matrix:
        """Return the vectors of rows in the space that likeness is measured in."""
        return about(self._mean, self._vectors(rows))

    def centred_items(self, items: Sequence[Item], name: str) -> Matrix:
        """Return the vectors of items in the same space, in all forms one after the other."""
        import numpy as np

        return np.concatenate(self._both(name, items))

    def reading(self, row: Row) -> FreeReading:
        """Return what the base made of a row."""
        self._vectors([row])
        return self._known[row.uid]

    def answered(self, dataset: str, wanted: int, without: Collection[int]) -> list[PassingRow]:
        """Return rows of `dataset` with the base's own answers, about as many as `wanted`.

        In the order of their hashes, so that a larger number begins with the same rows. What is
        passed over is set aside with its reason.
        """
        most = max(_LEAST_ASKED, _MOST_ASKED * wanted)
        found: list[PassingRow] = []
        asked = 0
        for rows in self._askable(dataset, without):
            for start in range(0, len(rows), _LEAST_ASKED):
                if len(found) >= wanted or asked >= most:
                    return found
                chunk = rows[start : start + _LEAST_ASKED]
                asked += len(chunk)
                found += self._own(chunk, dataset)
        return found

    def _askable(self, dataset: str, without: Collection[int]) -> Iterator[list[Row]]:
        """Yield rows that ask something and are like no gap, in chunks, at most 3,200 looked at."""
        for start in range(0, MOST_SCORED, _CHUNK):
            rows = [r for r in self._fitting(dataset, start, _CHUNK) if r.uid not in without]
            if not rows and start >= len(self._candidates.rows(dataset)):
                return
            kept = []
            for row, like in zip(rows, self._owners(rows), strict=True):
                said = (name for name, labels in self._labels.items() if answer_of(row) in labels)
                owner = next(said, like)
                if owner is not None:
                    why = f"is like what {owner} fails: replayed, it would keep that so"
                    self._candidates.set_aside(row, "like a gap", why)
                elif not asked_of(row):
                    why = "has no question that can be asked: plain text, or an answer with tools"
                    self._candidates.set_aside(row, "nothing to ask", why)
                else:
                    kept.append(row)
            yield kept

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

    def _both(self, name: str, items: Sequence[Item]) -> tuple[Matrix, ...]:
        """Return items as they stand, and as they are asked where that differs.

        A row of a free dataset may have the prompt in it, or not: without this, a prompt would make
        it unlike what it asks.
        """
        forms: list[list[Passage]] = [[], []]
        arm = zero_shot(subject(self._candidates.ws.spec, name))
        for item in items[:_MOST_FAILURES]:
            forms[0].append(passage_of_item(item))
            turns = render_messages(arm, item, (), ("…",))
            asked = "\n".join(str(turn["content"]) for turn in turns)
            forms[1].append(replace(forms[0][-1], asked=asked))
        if forms[0] == forms[1]:
            del forms[1]
        read = (self._readings.embed(form, f"{name} · failures").vectors for form in forms)
        return tuple(about(self._mean, vectors) for vectors in read)

    def _fitting(self, dataset: str, start: int, count: int) -> list[Row]:
        rows = self._candidates.rows(dataset)[start : start + count]
        return self._candidates.fitting(rows, dataset)

    def _owners(self, rows: Sequence[Row]) -> list[str | None]:
        vectors = self.centred(rows)
        above = {
            name: above_floor(vectors, forms, self.floors[name])
            for name, forms in self._forms.items()
        }
        return owners(above)

    def _vectors(self, rows: Sequence[Row]) -> Matrix:
        import numpy as np

        new = [row for row in rows if row.uid not in self._known]
        if new:
            read = self._readings.embed(
                [passage_of(r) for r in new], "free rows", losses=self._losses
            )
            for place, row in enumerate(new):
                one = FreeReading(read.vectors[place], read.asked[place], float(read.losses[place]))
                self._known[row.uid] = one
        if not rows:
            return np.zeros((0, 1), np.float32)
        return np.stack([self._known[row.uid].vector for row in rows])
