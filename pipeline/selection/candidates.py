"""Candidates for training: train rows that leak nothing and fit the base.

Nothing that dev or test of any dataset asks, or an lm-eval task of a guard, may be among them: not
the same, not 13 words in a row of it, nor a near-duplicate (which a dataset's own splits rule out,
but not those of another dataset).

Of a dataset of any size at most so many rows are taken as the budget has a use for, the first ones
in the order of a salted hash; what comes after them is not read, and not counted as a leak.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pipeline.measure.held_items import held_items, words_of_row
from pipeline.measure.measure import labels_of_subject
from pipeline.selection.selection import SelectReject, is_trainable, render
from pipeline.spec import pool
from pipeline.spec.subjects import subjects
from pipeline.training.examples.fitting import TemplateFit
from registry.datasets.duplicates.overlap import HeldOut
from registry.datasets.versions.rejects import commonest
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.versions.row import Row

_TEMPLATE_TOKENS = 256
"""What a chat template may add to a row; a row that only fits without it is encoded to find out."""

_EXCERPT = 200
_SPARE = 100  # rows read beyond those that are taken, for those that are refused


def pool_of(ws: OpenWorkspace) -> tuple[str, ...]:
    """Return the pool's datasets; see `spec.pool`."""
    return pool.pool_of(ws.spec)


def free_datasets(ws: OpenWorkspace) -> tuple[str, ...]:
    """Return the pool's datasets that no capability or guard measures; see `spec.pool`."""
    return pool.free_datasets(ws.spec)


class Candidates:
    """The rows of some datasets that may be trained on, read and checked once."""

    def __init__(
        self,
        ws: Resolved,
        most: Mapping[str, int],
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Read and check the datasets.

        Args:
            ws: the workspace.
            most: dataset -> how many of its rows to take at most, chosen by hash.
            advance: told how many rows were looked at since the last call.
        """
        self.ws = ws
        self._labels: dict[str, tuple[str, ...]] = {}
        self.leaks: Counter[str] = Counter()
        self.rejects: dict[int, SelectReject] = {}
        self.aside: dict[str, dict[int, SelectReject]] = {}
        self._checked: set[int] = set()
        self._advance = advance
        self._template = TemplateFit(ws.models.chat(ws.spec.train.base))
        held = HeldOut(held_items(ws))
        kept = {name: self._read(name, held, cut) for name, cut in most.items()}
        near = held.near([row.question for rows in kept.values() for row in rows])
        self.leaks["near-duplicate"] += len(near)
        places = iter(range(sum(map(len, kept.values()))))
        self._rows = {
            name: [row for row, place in zip(rows, places, strict=False) if place not in near]
            for name, rows in kept.items()
        }

    def rows(self, dataset: str) -> list[Row]:
        """Return the rows of `dataset` that leak nothing, in the order of their hashes."""
        return self._rows[dataset]

    def fitting(self, rows: Sequence[Row], name: str) -> list[Row]:
        """Return those of `rows` that fit the base as examples for `name`; others are rejects."""
        return [row for row in rows if self._fits(row, name)]

    def set_aside(self, row: Row, kind: str, reason: str) -> None:
        """Keep a row out for what it says; a reject with its reason, that no limit counts.

        Args:
            row: it.
            kind: of the reason, as it is counted for people: `mislabelled`.
            reason: of this row.
        """
        if not any(row.uid in rows for rows in self.aside.values()):  # the first reason stands
            found = _reject(row, self.ws.spec.train.base, reason)
            self.aside.setdefault(kind, {})[row.uid] = found

    def all_rejects(self) -> list[SelectReject]:
        """Return what was kept out, a row once: too long, refused by the template, set aside."""
        found = dict(self.rejects)
        for rows in self.aside.values():
            found = rows | found
        return list(found.values())

    def check(self) -> None:
        """Stop if more rows are too long for the base than the spec allows.

        Raises:
            UserError: they are; names the commonest reasons.
        """
        allowed, found = self.ws.spec.train.allow_rejects, list(self.rejects.values())
        if len(found) > allowed * len(self._checked):
            told = commonest((one.reason, f"{one.source_file}:{one.source_line}") for one in found)
            raise DataError(
                f"{len(found)} of {len(self._checked)} rows can't be trained on with base "
                f"'{self.ws.spec.train.base}': {told}",
                expected=f"at most {allowed:.1%}",
                fix="shorten or drop them, or raise train.allow_rejects",
            )

    def _read(self, dataset: str, held: HeldOut, cut: int) -> list[Row]:
        """Return the first `cut` usable rows by hash; what comes after them is not looked at."""
        from registry.datasets.versions.read import VersionReader

        reader = VersionReader(self.ws.store, self.ws.versions[dataset], dataset)
        usable: list[Row] = []
        for row in reader.by_hash({"train"}, "pool", cut + _SPARE):
            if len(usable) == cut:
                break
            self._advance(1)
            why = held.refuses(words_of_row(row))
            if why is not None:
                self.leaks[why] += 1
            elif is_trainable(row, self.ws.spec.train.objective):
                usable.append(row)
        return usable

    def _fits(self, row: Row, name: str) -> bool:
        from pipeline.training.examples.encode import RowRejectedError, encode_row
        from pipeline.training.examples.pairs import answered

        base = self.ws.spec.train.base
        example = render(self.ws, row, name, labels=self.labels_of(name))
        self._checked.add(row.uid)
        examples = answered(example)
        size = max(
            sum(len(str(turn.get("content") or "").encode()) for turn in one.messages)
            for one in examples
        )
        if why := next(filter(None, map(self._template.refuses, examples)), None):
            self.rejects[row.uid] = _reject(row, base, f"{why}")
            return False
        short = size + _TEMPLATE_TOKENS <= self.ws.models.identity(base).context
        if short and row.tools is None:
            return True  # a token is at least a byte
        try:
            for one in examples:
                encode_row(self.ws.models.get(base), one)
        except RowRejectedError as error:
            self.rejects[row.uid] = _reject(row, base, error.what)
            return False
        return True

    def labels_of(self, name: str) -> tuple[str, ...]:
        """Return the labels of a choice; none for what is no choice, or has each item's own."""
        if name not in self._labels:
            what = next((one for one in subjects(self.ws.spec) if one.name == name), None)
            found = labels_of_subject(self.ws, what) if what else ()
            self._labels[name] = found
        return self._labels[name]


def _reject(row: Row, base: str, reason: str) -> SelectReject:
    return SelectReject(
        stage="select",
        base=base,
        source=row.dataset,
        reason=reason,
        row_uid=row.uid,
        row_hash=row.row_hash,
        source_file=row.source_file,
        source_line=row.source_line,
        excerpt=row.text[:_EXCERPT],
    )
