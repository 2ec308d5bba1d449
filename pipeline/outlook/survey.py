"""The first records of a dataset, read once: rows by split, columns, rejects, and long rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.measure.held_items import MEASURED, words_of_row
from pipeline.spec.pool import TRAINABLE, DatasetRows
from registry.datasets.duplicates.overlap import HeldOutItem
from registry.datasets.sources.mapped import FileColumns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from registry.datasets.duplicates.overlap import RowWords
    from registry.datasets.sources.resolve import Sources
    from registry.datasets.spec import DatasetSpec
    from registry.datasets.versions.row import Row

LOOKED_AT = 20_000
"""Records of a dataset that are read."""

_KEPT = 64  # rows of a split that are kept, to see how long they are
_MOST_LONG = 64  # and of those that may be longer than a context,
_LONG_BYTES = 2 << 20  # which together say no more: tokens of a megabyte take a second
_HELD_BYTES = 32 << 20  # and of those that measure, to look for in the rows for training


@dataclass
class LongRows:
    """Rows that may be longer than a context: the first ones, how many, and of how many."""

    rows: list[Row] = field(default_factory=list)
    many: int = 0
    of: int = 0
    bytes: int = 0

    def add(self, row: Row, size: int) -> None:
        """Count one of so many bytes, and keep it as long as these are few."""
        self.many += 1
        self.bytes += size
        if len(self.rows) < _MOST_LONG and (not self.rows or self.bytes <= _LONG_BYTES):
            self.rows.append(row)

    def about(self, found: int) -> int:
        """Return how many there are of what so many of the kept ones are."""
        return round(self.many * found / max(1, len(self.rows)))


@dataclass(frozen=True)
class Survey:
    """What the first records of a dataset are.

    Attributes:
        rows: by split, where near-duplicates aren't looked for; of the version, where it is there.
        whole: every record was read.
        records: how many were.
        columns: of each file.
        rejects: why records can't be used -> how many, and where the first stands.
        some: split that the files give -> some of its rows, evenly.
        long: rows for dev and test that say more than the number of bytes asked for.
        long_taught: the same of rows for training.
        held: what its rows for dev and test say, where there is no version that has it.
    """

    rows: DatasetRows
    whole: bool
    records: int
    columns: tuple[FileColumns, ...]
    rejects: Mapping[str, tuple[int, str]]
    some: Mapping[str, tuple[Row, ...]]
    long: LongRows = field(default_factory=LongRows)
    long_taught: LongRows = field(default_factory=LongRows)
    held: tuple[HeldOutItem, ...] = ()


@dataclass
class _Reading:
    """What is gathered on the way."""

    found: dict[str, tuple[str, str]] = field(default_factory=dict)  # hash -> split, kind
    columns: dict[str, dict[str, None]] = field(default_factory=dict)  # of each file
    rejects: dict[str, tuple[int, str]] = field(default_factory=dict)
    some: dict[str, list[Row]] = field(default_factory=dict)
    long: LongRows = field(default_factory=LongRows)
    long_taught: LongRows = field(default_factory=LongRows)
    held: list[HeldOutItem] = field(default_factory=list)
    held_bytes: int = 0

    def long_in(self, split: str, *, carved: bool) -> Iterator[LongRows]:
        """Yield where long rows of a split's files count."""
        if split in MEASURED or carved:
            yield self.long
        if split == "train":
            yield self.long_taught


def survey(
    name: str,
    spec: DatasetSpec,
    files: Sources,
    labels: Collection[str] | None,
    size: int,
    known: DatasetRows | None = None,
) -> Survey:
    """Read the first records of a dataset.

    Args:
        name: the dataset's.
        spec: what the spec says of it.
        files: of it.
        labels: the answers that are allowed; None allows any.
        size: rows of more bytes than this are kept as long.
        known: rows by split, where its version is up to date.
    """
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.sources.chunks import first_records, usable
    from registry.datasets.versions.collect import row_of

    seen, records = _Reading(), Counter[str]()
    for file, record in first_records(files.files, LOOKED_AT):
        records[file.label] += 1
        seen.columns.setdefault(file.label, {}).update(dict.fromkeys(record.value or ()))
        try:
            made = usable(record, files.format, labels)
        except UnusableError as error:
            count, where = seen.rejects.get(error.reason, (0, f"{file.label}:{record.line}"))
            seen.rejects[error.reason] = (count + 1, where)
            continue
        there = seen.found.get(made.row_hash)
        seen.found[made.row_hash] = (_stronger(file.split, there), made.content.kind)
        kept = seen.some.setdefault(file.split, [])
        row = row_of(made, name, file, record.line)
        for long in seen.long_in(file.split, carved=bool(spec.carved)) if there is None else ():
            long.of += 1
            if made.size > size:
                long.add(row, made.size)
        if len(kept) < _KEPT:
            kept.append(row)
        if known is None and file.split in MEASURED and seen.held_bytes <= _HELD_BYTES:
            seen.held_bytes += made.size
            where = f"{row.source_file}:{row.source_line}"
            said = (row.row_hash, row.text, (row.question,))
            seen.held.append(HeldOutItem(f"{name} {row.split}", where, *said))
    share = max(1, LOOKED_AT // max(1, len(files.files)))
    return Survey(
        known or predicted(spec, list(seen.found.values())),
        whole=files.num_samples is None and all(count < share for count in records.values()),
        records=records.total(),
        columns=tuple(FileColumns(one, records[one], had) for one, had in seen.columns.items()),
        rejects=seen.rejects,
        some={split: tuple(rows) for split, rows in seen.some.items()},
        long=seen.long,
        long_taught=seen.long_taught,
        held=tuple(seen.held),
    )


def rows_in_train(
    name: str, files: Sources, labels: Collection[str] | None, objective: str
) -> Iterator[RowWords]:
    """Yield what the rows for training say that an objective learns from, each once."""
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.sources.chunks import first_records, usable
    from registry.datasets.versions.collect import row_of

    told: set[str] = set()
    for file, record in first_records(files.files, LOOKED_AT):
        if file.split != "train":
            continue
        try:
            made = usable(record, files.format, labels)
        except UnusableError:
            continue
        if made.content.kind in TRAINABLE[objective] and made.row_hash not in told:
            told.add(made.row_hash)
            yield words_of_row(row_of(made, name, file, record.line))


def predicted(spec: DatasetSpec, rows: Collection[tuple[str, str]]) -> DatasetRows:
    """Return how rows of these splits and kinds will be split, near-duplicates not looked for."""
    from registry.datasets.versions.version import split_targets

    splits = Counter(split for split, _ in rows)
    for target in reversed(split_targets(spec, len(rows))):  # test is filled first
        moved = min(target.rows, splits["train"])
        splits[target.split] += moved
        splits["train"] -= moved
    kinds = Counter(kind for split, kind in rows if split == "train")
    return DatasetRows(splits, kinds if splits["train"] else {})


def _stronger(split: str, there: tuple[str, str] | None) -> str:
    from registry.datasets.formats.content import SPLITS

    return split if there is None else max(split, there[0], key=SPLITS.index)
