"""Rows for the gaps: drawn from a capability's own dataset, then from free rows of its kind.

Drawn, not the nearest to what fails: docs/internals/decisions/0027-rows-are-drawn.md.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from pipeline.measure.measure import items_of, measure
from pipeline.selection.candidates import pool_of
from pipeline.selection.choose import draw
from pipeline.selection.judge.mislabelled import FEWEST, doubted_answers, doubted_labels
from pipeline.selection.judge.readings import passage_of
from pipeline.selection.judge.terms import Terms
from pipeline.selection.replay import PASSES
from pipeline.selection.selection import answer_of
from pipeline.spec.subjects import subject
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.tasks.capability import Item
    from pipeline.selection.candidates import Candidates
    from pipeline.selection.judge.free import FreeRows
    from pipeline.selection.judge.readings import Readings
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from registry.datasets.versions.row import Row

MOST_FAILURES = 300

READ_A_ROW = 1.5
"""Rows whose answers the base reads for each that is wanted: those that look wrong are left out."""

_KINDS_NAMED = 3


class GapRows:
    """Chooses the rows for one gap after the other; no row is chosen twice.

    Attributes:
        taken: uids of what was chosen.
        near_duplicates: how many rows were passed over for saying what a chosen one says.
        missing: gap -> rows of its budget that are not there.
        short_of: gap -> what there is no more of, in words.
        evals: ids of the evaluations that the failures were taken from.
    """

    def __init__(
        self, ws: Resolved, ui: Ui, candidates: Candidates, readings: Readings, base: str
    ) -> None:
        """Choose nothing yet."""
        self._ws = ws
        self._ui = ui
        self._candidates = candidates
        self._readings = readings
        self._base = base
        self.taken: set[int] = set()
        self.near_duplicates = 0
        self.missing: dict[str, int] = {}
        self.short_of: dict[str, str] = {}
        self.evals: list[str] = []

    def own(self, name: str) -> list[Row]:
        """Return the candidates of a capability's own dataset; none if it isn't in the pool."""
        data = subject(self._ws.spec, name).spec.data
        if data not in pool_of(self._ws):
            return []
        rows = self._candidates.fitting(self._candidates.rows(data), name)
        return [row for row in rows if row.uid not in self.taken]

    def choose(self, name: str, wanted: int, free: FreeRows | None) -> list[Row]:
        """Choose rows for a gap.

        Args:
            name: the capability.
            wanted: how many.
            free: the rows of free datasets, where own ones may not do.

        Raises:
            UserError: there is none.
        """
        what = subject(self._ws.spec, name)
        most = _most(what, wanted)
        chosen = self._drawn(what, self.own(name)[:most], wanted)
        own = len(chosen)
        if own < wanted and free is not None:
            chosen += self._drawn(what, free.like(name, most, self.taken), wanted - own)
        if not chosen and wanted:
            self._candidates.check()  # where all were refused, why says more
            raise DataError(
                f"no row of the pool can be trained on for '{name}'"
                f"{self._nothing_like(name, free)}",
                where="train.pool",
                expected=f"rows for training in dataset '{what.spec.data}', or a chat dataset",
            )
        if len(chosen) < wanted:
            self.missing[name] = wanted - len(chosen)
            self.short_of[name] = self._kind(what, own, chosen, free)
        return chosen

    def failures(self, name: str) -> list[Item]:
        """Return the dev items that the base fails, in the order of their hashes."""
        what = subject(self._ws.spec, name)
        items = items_of(self._ws, what, "dev")
        result = measure(self._ws, self._ui, what, base=self._base, items=items, split="dev")
        self.evals.append(result.id)
        wrong = sorted((s for s in result.samples if s.score < PASSES), key=lambda s: s.row_hash)
        by_uid = {item.uid: item for item in items}
        return [by_uid[sample.row_uid] for sample in wrong][:MOST_FAILURES]

    def _drawn(self, what: Subject, rows: Sequence[Row], wanted: int) -> list[Row]:
        """Draw rows, as many of each label where all items share the labels."""
        if not rows or wanted <= 0:
            return []
        doubted = self._doubted(what, rows)
        there = [row for row in rows if row.uid not in doubted]
        shared = what.spec.answer == "choice" and what.spec.labels_column is None
        labels = [answer_of(row) if shared else None for row in there]
        texts = [passage_of(row).text for row in there]
        drawn = draw(Terms.of(texts).vectors(texts), wanted, labels)
        self.near_duplicates += drawn.near_duplicates
        chosen = [there[place] for place in drawn.chosen]
        self.taken |= {row.uid for row in chosen}
        return chosen

    def _doubted(self, what: Subject, rows: Sequence[Row]) -> set[int]:
        """Set aside the rows that look wrong, and return their uids."""
        labels = set(self._candidates.labels_of(what.name))
        if what.spec.answer == "choice":
            judged = [row for row in rows if answer_of(row) in labels]
            asked = [passage_of(row).asked for row in judged]
            names = [answer_of(row) for row in judged]
            found, kind = doubted_labels(Terms.of(asked).vectors(asked), names), "mislabelled"
        else:
            judged = [row for row in rows if row.kind != "text"]
            losses = self._readings.losses([passage_of(row) for row in judged], what.name)
            found, kind = doubted_answers(losses), "doubtful answers"
        for doubt in found:
            self._candidates.set_aside(judged[doubt.position], kind, doubt.why)
        return {judged[doubt.position].uid for doubt in found}

    def _kind(self, what: Subject, own: int, chosen: Sequence[Row], free: FreeRows | None) -> str:
        """Return what there is no more of, in words."""
        parts = [f"{own} of '{what.spec.data}'"] if what.spec.data in pool_of(self._ws) else []
        if free is not None:
            like = f"like what it fails ({_at_least(free, what.name)})"
            parts.append(f"{len(chosen) - own} in free datasets {like}")
        told = "there are " + " and ".join(parts)
        labels = self._candidates.labels_of(what.name)
        if labels:
            counts = Counter(map(answer_of, chosen))
            fewest = sorted(labels, key=lambda label: (counts[label], label))[:_KINDS_NAMED]
            told += ", fewest of " + ", ".join(f"{label!r} ({counts[label]})" for label in fewest)
        return told

    def _nothing_like(self, name: str, free: FreeRows | None) -> str:
        if free is None:
            return ""
        return f": none is like what it fails ({_at_least(free, name)})"


def _most(what: Subject, wanted: int) -> int | None:
    """Return how many rows are looked at: all, but where the base has to read their answers."""
    if what.spec.answer == "choice":
        return None
    return max(FEWEST, math.ceil(READ_A_ROW * wanted))


def _at_least(free: FreeRows, name: str) -> str:
    """Return the floor of a gap, in words."""
    return f"similarity of at least {min(free.floors[name]):.2f}"
