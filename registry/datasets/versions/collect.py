"""The collection of a dataset's rows: deduplicated, every occurrence and reject listed."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.datasets.duplicates.hash_index import HashIndex, as_texts, hashes_of
from registry.datasets.readers.reading import remedy
from registry.datasets.sources.chunks import (
    RejectedRecord,
    UsableRecord,
    first_usable,
    read_chunks,
)
from registry.datasets.sources.mapped import FileColumns, lost_columns
from registry.datasets.versions.row import Row
from registry.datasets.versions.splits import CODED
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import pyarrow as pa

    from registry.datasets.formats.arrays import BoolArray, Int32Array, Int64Array, Uint8Array
    from registry.datasets.formats.format import Format
    from registry.datasets.sources.resolve import SourceFile, Sources
    from registry.datasets.versions.contents import ContentWriter
    from registry.datasets.versions.erased import ErasedRows
    from registry.datasets.versions.spool import Spool

_COMMONEST = 3  # reasons named when ingest stops


@dataclass(frozen=True)
class Occurrences:
    """Where contents stand, by column, in the order in which they were read.

    Attributes:
        rows: the place of the content.
        files: the number of the file among the sources.
        lines: in it, from 1.
    """

    rows: Int64Array
    files: Int32Array
    lines: Int64Array


@dataclass(frozen=True)
class CollectedRows:
    """All of a dataset's files, read.

    Attributes:
        index: the hash of each content, in the order in which they came.
        files: label and split of each file.
        occurrences: of the contents.
        uids: of each content.
        rejects: records that were not taken.
        records: how many there were.
        columns: of each file.
    """

    index: HashIndex
    files: tuple[tuple[str, str], ...]
    occurrences: Occurrences
    uids: Int64Array
    rejects: tuple[RejectedRecord, ...]
    records: int
    columns: tuple[FileColumns, ...] = ()

    def __len__(self) -> int:
        """How many contents there are."""
        return len(self.index)

    @property
    def given(self) -> Uint8Array:
        """The strongest split among the files of each content."""
        found = np.zeros(len(self), np.uint8)
        np.maximum.at(found, self.occurrences.rows, self._splits)
        return found

    @property
    def stands(self) -> Uint8Array:
        """The splits of the files in which each content stands, a bit each."""
        seen = np.zeros(len(self), np.uint8)
        np.bitwise_or.at(seen, self.occurrences.rows, np.left_shift(1, self._splits, dtype="u1"))
        return seen

    @property
    def leaked(self) -> int:
        """How many contents stand in files of more than one split."""
        return int(np.count_nonzero(in_several_splits(self.stands)))

    @property
    def _splits(self) -> Uint8Array:
        codes = np.array([CODED.index(split) for _, split in self.files], np.uint8)
        return codes[self.occurrences.files]


def in_several_splits(splits: Uint8Array) -> BoolArray:
    """Whether more than one bit is set in each of these."""
    return (splits & (splits - np.uint8(1))) != 0


class Collector:
    """Takes rows as they are read, and keeps of each what a version says of it."""

    def __init__(self, writer: ContentWriter, spool: Spool) -> None:
        """Contents go to `writer`; `meta` and `text` of each to `spool`, in the same order."""
        self._writer = writer
        self._spool = spool
        self._index = HashIndex()
        self._uids: list[Int64Array] = []
        self._found: list[tuple[Int64Array, Int32Array, Int64Array]] = []
        self._rejects: list[RejectedRecord] = []
        self._records = 0

    def add(
        self, table: pa.Table, files: int | Int32Array, lines: Sequence[int] | Int64Array
    ) -> None:
        """Take rows, as `Chunk.table` has them: of one file, or each with the number of its own."""
        hashes = hashes_of(table["row_hash"].combine_chunks())
        rows, first = self._index.place(hashes)
        numbers = np.broadcast_to(np.asarray(files, np.int32), len(rows))
        self._found.append((rows, numbers, np.asarray(lines, np.int64)))
        if not first.all():
            table, hashes = table.filter(first), hashes[first]
        self._spool.write(table)
        self._uids.append(self._writer.take(hashes, table.drop_columns(["meta", "text"])))

    def reject(self, rejects: Sequence[RejectedRecord], records: int) -> None:
        """Count records, and keep those that were not taken."""
        self._rejects += rejects
        self._records += records

    def collected(
        self, files: Sequence[tuple[str, str]], columns: Sequence[FileColumns] = ()
    ) -> CollectedRows:
        """Return all that was taken; `files` are labels and splits, `columns` what they have."""
        self._writer.flush()
        empty = (np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))
        rows, numbers, lines = (
            np.concatenate(parts) for parts in zip(empty, *self._found, strict=True)
        )
        uids = np.concatenate([empty[0], *self._uids])
        self._found, self._uids = [], []  # a copy of each is enough
        return CollectedRows(
            index=self._index,
            files=tuple(files),
            occurrences=Occurrences(rows, numbers, lines),
            uids=uids,
            rejects=tuple(self._rejects),
            records=self._records,
            columns=tuple(columns),
        )


def collect(
    sources: Sources,
    labels: Collection[str] | None,
    collector: Collector,
    advance: Callable[[int], None],
) -> CollectedRows:
    """Read every record of every file.

    Args:
        sources: the files and their format.
        labels: the answers that are allowed; None allows any.
        collector: takes them.
        advance: told the number of records read since the last call.

    Raises:
        UserError: a file that can't be read as a whole.
    """
    sample = _sample(sources, labels)
    mapped = frozenset(sources.format.columns.values())
    seen = []
    for number, file in enumerate(sources.files):
        columns, records = dict[str, None](), 0
        for chunk in read_chunks(file, sources.format, labels):
            collector.reject(chunk.rejects, chunk.records)
            # Records may have as many names as they like: those of the first ones are enough.
            columns |= {one: None for one in chunk.columns if not records or one in mapped}
            records += chunk.records
            table, lines = chunk.table, chunk.lines
            if sample is not None:
                wanted = np.array([one in sample for one in table["row_hash"].to_pylist()], bool)
                table, lines = table.filter(wanted), lines[wanted]
            collector.add(table, number, lines)
            advance(chunk.records)
        seen.append(FileColumns(file.label, records, columns))
    return collector.collected([(file.label, file.split) for file in sources.files], seen)


def first_row(sources: Sources, dataset: str) -> Row | None:
    """Return the first record that can be used as the row it will be, but for its place.

    Raises:
        UserError: a file that can't be read as a whole.
    """
    found = first_usable(sources)
    if found is None:
        return None
    file, line, usable = found
    return row_of(usable, dataset, file, line)


def check_columns(found: CollectedRows, mapped: Mapping[str, str], form: Format, name: str) -> None:
    """Stop at a column that the spec maps and the files don't have.

    Raises:
        UserError: there is one.
    """
    for lost in lost_columns(mapped, form.required_columns, found.columns):
        key = f"datasets.{name}.columns.{lost.part}"
        raise DataError(lost.what, key, expected=lost.expected, fix=lost.fix)


def check_rejects(found: CollectedRows, allowed: float, name: str) -> None:
    """Stop when too many records were rejected.

    Raises:
        UserError: with the commonest reasons and how to allow it.
    """
    count = len(found.rejects)
    if not found.records or count / found.records <= allowed:
        return
    reasons = Counter(reject.reason for reject in found.rejects).most_common(_COMMONEST)
    told = "; ".join(f"{n} x {reason} ({_first(found, reason)})" for reason, n in reasons)
    share = count / found.records
    raise DataError(
        f"{count} of {found.records} rows of dataset '{name}' can't be used: {told}",
        expected=f"at most {allowed:.1%} of them",
        fix=remedy(reasons[0][0])
        or f"mend the rows, or set datasets.{name}.allow_rejects: {_rounded_up(share)}",
    )


def _first(found: CollectedRows, reason: str) -> str:
    first = next(reject for reject in found.rejects if reject.reason == reason)
    return f"first {first.file}:{first.line}" + (f", {first.detail}" if first.detail else "")


def _rounded_up(share: float) -> float:
    return min(1.0, (int(share * 100) + 1) / 100)


def _sample(sources: Sources, labels: Collection[str] | None) -> frozenset[str] | None:
    """Return the hashes of `num_samples` rows, chosen by hash; None takes all."""
    if sources.num_samples is None:
        return None
    index = HashIndex()
    for file in sources.files:
        for chunk in read_chunks(file, sources.format, labels):
            index.place(hashes_of(chunk.table["row_hash"].combine_chunks()))
    texts = as_texts(index.hashes).to_pylist()
    return frozenset(heapq.nsmallest(sources.num_samples, texts, key=_sample_order))


def _sample_order(row_hash: str) -> bytes:
    return hashlib.sha256(f"sample:{row_hash}".encode()).digest()


class WithholdingCollector(Collector):
    """A collector that passes over erased rows and counts how often it met one."""

    def __init__(self, erased: ErasedRows, writer: ContentWriter, spool: Spool) -> None:
        """Remember which rows were erased; the rest is as in `Collector`."""
        super().__init__(writer, spool)
        self._erased = erased
        self.withheld = 0

    def add(
        self, table: pa.Table, files: int | Int32Array, lines: Sequence[int] | Int64Array
    ) -> None:
        """Take rows as `Collector.add` does, but for those that were erased."""
        if self._erased:
            kept = ~np.array(self._erased.among(table["row_hash"].to_pylist()), bool)
            if not kept.all():
                self.withheld += int(np.count_nonzero(~kept))
                table, lines = table.filter(kept), np.asarray(lines, np.int64)[kept]
                files = files if isinstance(files, int) else files[kept]
        super().add(table, files, lines)


def row_of(usable: UsableRecord, dataset: str, file: SourceFile, line: int) -> Row:
    """Return the row that a record would be, but for its place in a version."""
    content = usable.content
    return Row(
        uid=0,
        row_hash=usable.row_hash,
        kind=content.kind,
        messages=content.messages,
        chosen=content.chosen,
        rejected=content.rejected,
        label=content.label,
        tools=content.tools,
        split=file.split,
        cluster=0,
        dataset=dataset,
        source_file=file.label,
        source_line=line,
        license="",
        tags=(),
        meta=usable.meta,
    )
