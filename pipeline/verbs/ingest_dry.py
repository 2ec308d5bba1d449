"""ingest --dry-run: what a dataset is taken for, what of it would be rejected, three of its rows.

Only the first records are read, a share of each file, and nothing goes into the store.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.selection.preview import Reader, base_at_hand
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.selection.preview import BaseAtHand, SeenRow
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.sources.resolve import Sources
    from registry.datasets.versions.row import Row

SAMPLE = 1000
_COMMONEST = 3  # reasons that are named


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """Why records would be rejected: how many of the sample, and the first of them."""

    reason: str
    count: int
    file: str
    line: int
    detail: str


@dataclass(frozen=True, slots=True)
class DatasetLook:
    """What one dataset is, by the first of its records.

    Attributes:
        name: the dataset's.
        format: how a record becomes a row.
        why: how that is known.
        taken: what of a file isn't read as its ending says.
        files: name and split of each.
        sampled: records that were read.
        rejected: how many of them would be.
        reasons: the commonest.
        left_out: keys of turns that a row has no place for, and in how many records.
        template: how the rows are shown.
        rows: three, or fewer where there are fewer.
    """

    name: str
    format: str
    why: str
    taken: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    sampled: int
    rejected: int
    reasons: tuple[RefusalCount, ...]
    left_out: dict[str, int]
    template: str
    rows: tuple[SeenRow, ...]


def look(ws: OpenWorkspace, ui: Ui, names: Sequence[str] | None = None) -> tuple[DatasetLook, ...]:
    """Look at each named dataset, or at all, without writing to the store.

    Raises:
        UserError: an unknown dataset, or files that can't be read.
    """
    chosen = list(ws.spec.datasets if names is None else names)
    for name in chosen:
        if name not in ws.spec.datasets:
            known = ", ".join(ws.spec.datasets)
            raise UserError(f"no dataset is called '{name}'", expected=f"one of {known}")
    samples = []
    for name in chosen:
        with ui.progress(f"look · {name}", SAMPLE, "records") as bar:
            samples.append((name, *_read(ws, name, bar.advance)))
    base = base_at_hand(ws)
    return tuple(_look(ws, name, found, seen, base) for name, found, seen in samples)


def _read(ws: OpenWorkspace, name: str, advance: Callable[[], None]) -> tuple[Sources, _Sample]:
    from pipeline.ingest import allowed_labels
    from registry.datasets.sources.resolve import sources

    found = sources(ws.spec.datasets[name], ws.root)
    return found, _sample(found, name, allowed_labels(ws, name), advance)


def _look(
    ws: OpenWorkspace, name: str, found: Sources, seen: _Sample, base: BaseAtHand
) -> DatasetLook:
    reader = Reader.of(ws, name, seen.rows, base)
    reasons = Counter(reject.reason for reject in seen.rejects).most_common(_COMMONEST)
    return DatasetLook(
        name=name,
        format=found.name,
        why=found.why,
        taken=found.taken,
        files=tuple((file.label, file.split) for file in found.files),
        sampled=len(seen.rejects) + len(seen.rows),
        rejected=len(seen.rejects),
        reasons=tuple(_first_of(seen.rejects, reason, count) for reason, count in reasons),
        left_out=dict(seen.left_out.most_common()),
        template=reader.how,
        rows=tuple(reader.see(which, row) for which, row in _three(seen.rows)),
    )


@dataclass
class _Sample:
    """The first records: what would be rejected, what becomes rows, what rows can't hold."""

    rejects: list[RefusalCount] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def _sample(
    found: Sources, name: str, labels: frozenset[str] | None, advance: Callable[[], None]
) -> _Sample:
    from registry.datasets.formats.format import left_out
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.sources.chunks import first_records, usable
    from registry.datasets.versions.collect import row_of

    seen = _Sample()
    for file, record in first_records(found.files, SAMPLE):
        advance()
        try:
            made = usable(record, found.format, labels)
        except UnusableError as error:
            seen.rejects.append(
                RefusalCount(error.reason, 1, file.label, record.line, error.detail)
            )
        else:
            seen.rows.append(row_of(made, name, file, record.line))
            seen.left_out.update(left_out(found.format, record.value or {}))
    return seen


def _first_of(rejects: Sequence[RefusalCount], reason: str, count: int) -> RefusalCount:
    first = next(reject for reject in rejects if reject.reason == reason)
    return RefusalCount(reason, count, first.file, first.line, first.detail)


def _three(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    ordered = sorted(rows, key=_length)
    places = {0: "shortest", len(ordered) - 1: "longest", len(ordered) // 2: "median"}
    if len(ordered) < len(("shortest", "median", "longest")):
        places = dict(zip(range(len(ordered)), ("shortest", "longest"), strict=False))
    for place in sorted(places):
        yield places[place], ordered[place]


def _length(row: Row) -> int:
    turns = (*row.messages, *(row.chosen or ()), *(row.rejected or ()))
    return sum(len(turn.content) + len(turn.tool_calls or "") for turn in turns)
