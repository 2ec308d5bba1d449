"""What `check` says of a dataset's answers, by its first records: nothing is refused for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from registry.datasets.sources.resolve import Sources

LOOKED_AT = 20_000
"""Records of a dataset that are read."""

_SHOWN = 5  # groups of labels, or answers, that are named
_OF_A_LABEL = 5  # rows of a label, on average, from which answers are taken for labels


@dataclass(frozen=True)
class SeenAnswer:
    """How many rows have an answer, and where the first one stands."""

    count: int
    where: str


def notes_on(name: str, files: Sources, labels: Collection[str] | None) -> list[str]:
    """Return what may not be meant in a dataset's answers.

    Args:
        name: the dataset's.
        files: of it.
        labels: those that the spec lists; empty where the data decide; None where no choice is
            made from its answers.
    """
    from evals.tasks.answers import is_missing

    answers = _answers(files)
    missing = [said for said in answers if is_missing(said)]
    notes = [
        f"{answers[said].where}: the answer is {said!r}, as a table's missing cell"
        f"{_so_often(answers[said].count)}"
        for said in missing[:_SHOWN]
    ]
    rows = sum(one.count for one in answers.values())
    if labels is not None or _OF_A_LABEL * len(answers) <= rows:
        notes += _on_labels(answers, labels or ())
    return [f"datasets.{name}: {note}" for note in notes]


def _on_labels(answers: Mapping[str, SeenAnswer], labels: Collection[str]) -> list[str]:
    from evals.tasks.answers import alike

    notes = []
    for group in alike((*labels, *answers))[:_SHOWN]:
        said = " and ".join(_said(one, answers.get(one)) for one in group)
        notes.append(f"{said} differ by case, space, width or Unicode form alone: two labels")
    return notes


def _said(label: str, seen: SeenAnswer | None) -> str:
    if seen is None:
        return f"{label!r} (of labels)"
    return f"{label!r} ({seen.where}{_so_often(seen.count)})"


def _so_often(count: int) -> str:
    return "" if count == 1 else f", in {count:,} rows"


def _answers(files: Sources) -> dict[str, SeenAnswer]:
    """Return the answers of the first records that become a row with a question and an answer."""
    from registry.datasets.formats.content import answer
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.sources.chunks import first_records, usable

    seen: dict[str, SeenAnswer] = {}
    for file, record in first_records(files.files, LOOKED_AT):
        try:
            content = usable(record, files.format, None).content
        except UnusableError:
            continue  # ingest counts these, and says so
        if content.kind == "sft":
            said = answer(content)
            before = seen.get(said)
            where = before.where if before else f"{file.label}:{record.line}"
            seen[said] = SeenAnswer(1 + (before.count if before else 0), where)
    return seen
