"""Rows of free datasets: which gap they are like, and what the base itself says to the others.

Nobody says what such a row is for. One that is as near to a gap's failures as these are to each
other may be chosen for that gap and is never replayed; any other may be replayed, with the base's
own answer, and is never chosen for a gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.selection.candidates import free_datasets
from pipeline.selection.choose import about
from pipeline.selection.judge.answers import UNUSABLE, why_unusable
from pipeline.selection.judge.likeness import floor_of, nearest_to, owners
from pipeline.selection.judge.readings import passage_of, passage_of_item
from pipeline.selection.replay import MOST_SCORED, PassingRow
from pipeline.selection.selection import asked_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np

    from evals.tasks.capability import Item
    from pipeline.selection.candidates import Candidates
    from pipeline.selection.choose import Matrix
    from pipeline.selection.judge.readings import Readings
    from registry.datasets.versions.row import Row

_SAMPLE = 200
"""Rows of each dataset whose mean is what all are centred about, however many are read."""

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
        sample = [row for name in self._datasets for row in self._fitting(name, 0, _SAMPLE)]
        self._mean = self._vectors(sample, "free rows").mean(axis=0) if sample else 0.0
        self._failures = {name: self.centred_items(items, name) for name, items in failures.items()}
        self.floors = {name: floor_of(near) for name, near in self._failures.items()}

    def like(self, name: str) -> list[Row]:
        """Return the rows that are like gap `name` and like no other more."""
        rows = [row for one in self._datasets for row in self._fitting(one, 0, None)]
        return [row for row, owner in zip(rows, self._owners(rows), strict=True) if owner == name]

    def centred(self, rows: Sequence[Row]) -> Matrix:
        """Return the vectors of rows in the space that likeness is measured in."""
        return about(self._mean, self._vectors(rows, "free rows"))

    def centred_items(self, items: Sequence[Item], name: str) -> Matrix:
        """Return the vectors of items in the same space."""
        found = self._readings.embed([passage_of_item(item) for item in items], f"{name} · failed")
        return about(self._mean, found.vectors)

    def reading(self, row: Row) -> FreeReading:
        """Return what the base made of a row."""
        self._vectors([row], "free rows")
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
        for start in range(0, MOST_SCORED, _SAMPLE):
            rows = [r for r in self._fitting(dataset, start, _SAMPLE) if r.uid not in without]
            if not rows and start >= len(self._candidates.rows(dataset)):
                return
            kept = []
            for row, owner in zip(rows, self._owners(rows), strict=True):
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

    def _fitting(self, dataset: str, start: int, count: int | None) -> list[Row]:
        rows = self._candidates.rows(dataset)
        chosen = rows[start:] if count is None else rows[start : start + count]
        return self._candidates.fitting(chosen, dataset)

    def _owners(self, rows: Sequence[Row]) -> list[str | None]:
        vectors = self.centred(rows)
        near = {name: nearest_to(vectors, failed) for name, failed in self._failures.items()}
        return owners(near, self.floors)

    def _vectors(self, rows: Sequence[Row], label: str) -> Matrix:
        import numpy as np

        new = [row for row in rows if row.uid not in self._known]
        if new:
            read = self._readings.embed([passage_of(r) for r in new], label, losses=self._losses)
            for place, row in enumerate(new):
                one = FreeReading(read.vectors[place], read.asked[place], float(read.losses[place]))
                self._known[row.uid] = one
        if not rows:
            return np.zeros((0, 1), np.float32)
        return np.stack([self._known[row.uid].vector for row in rows])
