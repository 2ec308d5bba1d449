"""What `check` says of a dataset's first records: its answers, and what a key would read.

Nothing is refused for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from registry.datasets.sources.resolve import Sources

LOOKED_AT = 20_000
"""Records of a dataset that are read."""

_SHOWN = 5  # groups of labels, or answers, that are named
_WRITING = "case, space, width, Unicode form or a .0"
_OF_A_LABEL = 5  # rows of a label, on average, from which answers are taken for labels


@dataclass(frozen=True)
class SeenTimes:
    """How many records say the same, and where the first one stands."""

    count: int
    where: str


def notes_on(name: str, files: Sources, labels: Collection[str] | None) -> list[str]:
    """Return what may not be meant in a dataset's answers, and records that a key would read.

    Args:
        name: the dataset's.
        files: of it.
        labels: those that the spec lists; empty where the data decide; None where no choice is
            made from its answers.
    """
    from evals.tasks.answers import is_missing
    from registry.datasets.readers.reading import remedy

    answers, unread = _looked_at(files)
    missing = [said for said in answers if is_missing(said)]
    notes = [
        f"{answers[said].where}: the answer is {said!r}, as a table's missing cell"
        f"{_so_often(answers[said].count)}"
        for said in missing[:_SHOWN]
    ]
    rows = sum(one.count for one in answers.values())
    if labels is not None or _OF_A_LABEL * len(answers) <= rows:
        notes += _on_labels(answers, labels or ())
    notes += [
        f"{seen.where}: no row{_so_often(seen.count)}: {why}; {remedy(why)}"
        for why, seen in unread.items()
    ]
    return [f"datasets.{name}: {note}" for note in notes]


def _on_labels(answers: Mapping[str, SeenTimes], labels: Collection[str]) -> list[str]:
    from evals.tasks.answers import alike

    notes = []
    for group in alike((*labels, *answers))[:_SHOWN]:
        said = " and ".join(_said(one, answers.get(one)) for one in group)
        notes.append(f"{said} differ by {_WRITING} alone: two labels")
    return notes


def _said(label: str, seen: SeenTimes | None) -> str:
    if seen is None:
        return f"{label!r} (of labels)"
    return f"{label!r} ({seen.where}{_so_often(seen.count)})"


def _so_often(count: int) -> str:
    return "" if count == 1 else f", in {count:,} rows"


def _looked_at(files: Sources) -> tuple[dict[str, SeenTimes], dict[str, SeenTimes]]:
    """Return the answers of the first records, and why others are none where a key may help."""
    from registry.datasets.formats.content import answer
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.readers.reading import remedy
    from registry.datasets.sources.chunks import first_records, usable

    answers: dict[str, SeenTimes] = {}
    unread: dict[str, SeenTimes] = {}
    for file, record in first_records(files.files, LOOKED_AT):
        where = f"{file.label}:{record.line}"
        try:
            content = usable(record, files.format, None).content
        except UnusableError as error:
            if remedy(error.reason):
                _count(unread, error.reason, f"{where}, {error.detail}" if error.detail else where)
        else:
            if content.kind == "sft":
                _count(answers, answer(content), where)
    return answers, unread


def _count(seen: dict[str, SeenTimes], said: str, where: str) -> None:
    before = seen.get(said)
    seen[said] = SeenTimes(before.count + 1, before.where) if before else SeenTimes(1, where)
