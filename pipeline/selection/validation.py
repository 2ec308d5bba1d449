"""Validation of a training run: rows held out of it, and a few questions asked on the way."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from evals.tasks.capability import Item
    from pipeline.spec.subjects import Subject
    from pipeline.spec.train import ValidationSpec
    from pipeline.training.examples.encode import TrainingRow
    from pipeline.training.fit import RunWatch
    from pipeline.training.losses.objective import TrainingExample
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui

_MOST_ROWS = 512  # of a dataset's dev split; a check should be short beside the steps between two


@dataclass(frozen=True)
class TrainingSet:
    """Rows to train on, and what the run is watched by, if it is."""

    rows: tuple[TrainingExample, ...]
    watch: RunWatch | None


@dataclass(frozen=True)
class ChoiceQuestion:
    """An item of a capability with choices: a row for each choice, and which is right."""

    choices: tuple[TrainingRow, ...]
    right: int


def training_set(ws: Resolved, ui: Ui, selection_id: str) -> TrainingSet:
    """Return a selection's rows, without those that the run is watched by.

    Raises:
        UserError: no such dataset, rows in it that are trained on too, or too few to hold any out.
    """
    from pipeline.selection.selection import read_selection, training_rows
    from pipeline.training.fit import RunWatch

    rows = training_rows(ws, selection_id)
    given = ws.spec.train.validation
    if given is None:
        return TrainingSet(tuple(rows), None)
    hashes = [row.row_hash for row in read_selection(ws.store, selection_id)]
    if given.data is None:
        held = held_out(hashes, share=given.share, seed=ws.spec.train.seed)
        watched = [row for row, one in zip(rows, hashes, strict=True) if one in held]
        rows = [row for row, one in zip(rows, hashes, strict=True) if one not in held]
        if not rows or not watched:
            raise DataError(
                f"{len(hashes)} rows are too few to hold out {given.share:.0%} of them",
                where="train.validation.share",
                expected="more rows, or train.validation.data: a dataset",
            )
    else:
        watched = _of_dataset(ws, given.data, set(hashes))
    return TrainingSet(tuple(rows), RunWatch(watched, _probe(ws, ui, given)))


def held_out(hashes: Sequence[str], *, share: float, seed: int) -> set[str]:
    """Return the contents that are held out: equal rows go together, the same for every order."""

    def rank(content: str) -> bytes:
        return hashlib.blake2b(f"validation:{seed}:{content}".encode(), digest_size=16).digest()

    every = sorted(set(hashes), key=rank)
    return set(every[: min(len(every) - 1, math.ceil(share * len(every)))])


def _of_dataset(ws: Resolved, name: str, trained: set[str]) -> list[TrainingExample]:
    from pipeline.measure.measure import labels_of_subject
    from pipeline.selection.selection import render
    from pipeline.spec.subjects import subjects
    from registry.datasets.versions.read import VersionReader

    where = "train.validation.data"
    if name not in ws.spec.datasets:
        raise DataError(f"no dataset '{name}'", where, ", ".join(ws.spec.datasets))
    reader = VersionReader(ws.store, ws.versions[name], name)
    both = reader.places({"dev"}, trained)
    if both:
        raise DataError(
            f"{len(both)} rows of '{name}' are trained on too, the first is {both[0][1]}",
            where,
            expected="rows that the run doesn't see",
        )
    rows = reader.rows(reader.uids({"dev"}, limit=_MOST_ROWS))
    if not rows:
        raise DataError(f"'{name}' has no dev rows", where, "a dataset with a dev split")
    about = next((what for what in subjects(ws.spec) if what.spec.data == name), None)
    labels = labels_of_subject(ws, about) if about else ()
    shown = about.name if about else name
    return [render(ws, row, shown, labels=labels) for row in rows]


def _probe(
    ws: Resolved, ui: Ui, given: ValidationSpec
) -> Callable[[torch.nn.Module], float] | None:
    if not given.probe_items:
        return None
    found = questions(ws, ui, given.probe_items)
    if not found:
        raise DataError(
            "no tuned capability is a choice between answers",
            where="train.validation.probe_items",
            expected="0, or a capability with `answer: choice`",
        )
    loaded = ws.models.get(ws.spec.train.base)

    def ask(model: torch.nn.Module) -> float:
        from pipeline.training.record.probe import share_right

        return share_right(model, loaded, found)

    return ask


def questions(ws: Resolved, ui: Ui, count: int) -> list[ChoiceQuestion]:
    """Return dev items of the tuned capabilities with choices, as many of each as of the others."""
    from pipeline.gap import gap
    from pipeline.measure.measure import items_of, labels_of_subject
    from pipeline.spec.subjects import subject

    tuned = [subject(ws.spec, name) for name in sorted(gap(ws, ui).gaps())]
    tuned = [what for what in tuned if what.spec.data and what.spec.answer == "choice"]
    each = math.ceil(count / max(1, len(tuned)))
    found: list[ChoiceQuestion] = []
    for what in tuned:
        labels = labels_of_subject(ws, what)
        for item in items_of(ws, what, "dev", each):
            choices = item.labels or labels
            if item.expected in choices:
                rows = tuple(_answered(what, item, one, labels) for one in choices)
                found.append(ChoiceQuestion(rows, choices.index(item.expected)))
    return found


def _answered(what: Subject, item: Item, answer: str, labels: Sequence[str]) -> TrainingRow:
    from evals.tasks.prompts import arms_of, render_messages
    from pipeline.training.examples.encode import TrainingRow

    asked = render_messages(arms_of(what.spec.prompts)[0], item, (), labels)
    context: list[dict[str, Any]] = [
        {**turn, "train": False} if turn["role"] == "assistant" else {**turn} for turn in asked
    ]
    said = {"role": "assistant", "content": answer}
    return TrainingRow(item.uid, (*context, said), None, what.name)
