"""Records of a file as columns: what of them is usable and what is not, thousands at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from registry.datasets.formats.content import (
    Content,
    Message,
    answer,
    content_schema,
    digest,
    encoded,
    user_text,
)
from registry.datasets.formats.turns import UnusableError
from registry.datasets.readers.read import read_records
from registry.datasets.readers.reading import NO_UNICODE, looks_like

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import pyarrow as pa

    from registry.datasets.formats.arrays import Int64Array
    from registry.datasets.formats.format import Format
    from registry.datasets.readers.record import Record
    from registry.datasets.sources.resolve import SourceFile, Sources

_AT_ONCE = 5_000  # records, or
_BYTES = 1 << 23  # of what they say: what is made of them stays small


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that was not taken; equal `reason`s are counted together."""

    file: str
    line: int
    reason: str
    detail: str = ""

    @property
    def text(self) -> str:
        """The reason with what tells this record apart."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class UsableRecord(msgspec.Struct, frozen=True, gc=False):
    """A record that becomes a row: what it says, its hash, and its other columns as JSON.

    `size` is that of all of it, in bytes.
    """

    content: Content
    row_hash: str
    meta: str
    size: int = 0


@dataclass(frozen=True)
class RowChunk:
    """Neighbouring records of one file.

    Attributes:
        table: those that are usable, by column: what `rows.parquet` has but the uid, and `meta`
            and `text`, in which near-duplicates are looked for.
        lines: of each of them, from 1.
        rejects: the others.
        records: how many there were of both.
        columns: those that any of them has.
    """

    table: pa.Table
    lines: Int64Array
    rejects: tuple[RejectedRecord, ...]
    records: int
    columns: tuple[str, ...]


@dataclass
class _ChunkBuilder:
    """What is read until it makes a chunk."""

    rows: list[UsableRecord] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    rejects: list[RejectedRecord] = field(default_factory=list)
    records: int = 0
    size: int = 0
    columns: dict[str, None] = field(default_factory=dict)

    def take(
        self, record: Record, label: str, form: Format, labels: Collection[str] | None
    ) -> None:
        self.records += 1
        if record.value is not None and not record.value.keys() <= self.columns.keys():
            self.columns |= dict.fromkeys(record.value)
        try:
            row = usable(record, form, labels)
        except UnusableError as error:
            self.rejects.append(RejectedRecord(label, record.line, error.reason, error.detail))
        else:
            self.rows.append(row)
            self.lines.append(record.line)
            self.size += row.size

    def chunk(self) -> RowChunk:
        lines = np.array(self.lines, np.int64)
        columns = tuple(self.columns)
        return RowChunk(table_of(self.rows), lines, tuple(self.rejects), self.records, columns)


def read_chunks(
    file: SourceFile, form: Format, labels: Collection[str] | None
) -> Iterator[RowChunk]:
    """Yield the records of a file, in their order.

    Raises:
        UserError: it can't be read as a whole.
    """
    gathered = _ChunkBuilder()
    for record in read_records(file.path, file.reading):
        gathered.take(record, file.label, form, labels)
        if gathered.records == _AT_ONCE or gathered.size >= _BYTES:
            yield gathered.chunk()
            gathered = _ChunkBuilder()
    if gathered.records:
        yield gathered.chunk()


def usable(record: Record, form: Format, labels: Collection[str] | None) -> UsableRecord:
    """Turn a record into content, hash and meta, all of which UTF-8 can say.

    Raises:
        UnusableError: it can't become a row, or its answer is none of the labels.
    """
    if record.value is None:
        reason, _, detail = (record.error or "").partition(": ")
        raise UnusableError(reason, detail)
    try:
        content = form.content(record.value)
        meta = form.meta(record.value)
        size = len(meta.encode())
        said = encoded(content)
    except UnicodeEncodeError as error:
        raise UnusableError(NO_UNICODE, looks_like(error.object)) from error
    except RecursionError as error:  # decoding goes a little deeper than what is made of it
        raise UnusableError("malformed JSON", "nested too deeply") from error
    if labels is not None and content.kind == "sft" and answer(content) not in labels:
        raise UnusableError("label not in the label set", repr(answer(content))[:80])
    return UsableRecord(content, digest(said), meta, size + len(said))


def first_usable(sources: Sources) -> tuple[SourceFile, int, UsableRecord] | None:
    """Return the first record that can be used, with its file and line; None if there is none.

    Raises:
        UserError: a file can't be read as a whole.
    """
    for file in sources.files:
        for record in read_records(file.path, file.reading):
            try:
                return file, record.line, usable(record, sources.format, None)
            except UnusableError:
                continue
    return None


def first_records(files: Sequence[SourceFile], most: int) -> Iterator[tuple[SourceFile, Record]]:
    """Yield the first records of each file, together at most so many.

    Raises:
        UserError: a file can't be read as a whole.
    """
    share = max(1, most // max(1, len(files)))
    records = (
        (file, record)
        for file in files
        for record in islice(read_records(file.path, file.reading), share)
    )
    return islice(records, most)


def table_of(rows: Sequence[UsableRecord]) -> pa.Table:
    """Return rows by column; see `RowChunk.table`."""
    import pyarrow as pa

    said = [row.content for row in rows]
    schema = content_schema()
    turns = schema.field("messages").type
    columns = {
        "row_hash": pa.array([row.row_hash for row in rows], pa.string()),
        "kind": pa.array([one.kind for one in said], pa.string()),
        "messages": _turns([one.messages for one in said], turns),
        "chosen": _turns([one.chosen for one in said], turns),
        "rejected": _turns([one.rejected for one in said], turns),
        "label": pa.array([one.label for one in said], pa.bool_()),
        "tools": pa.array([one.tools for one in said], pa.string()),
        "meta": pa.array([row.meta for row in rows], pa.string()),
        "text": pa.array([user_text(one) for one in said], pa.string()),
    }
    return pa.table(columns)


def _turns(lists: Sequence[tuple[Message, ...] | None], kind: Any) -> pa.Array:
    """Return lists of turns as Arrow's, without a dictionary for each turn."""
    import pyarrow as pa

    if all(one is None for one in lists):
        return pa.nulls(len(lists), kind)
    flat = [turn for one in lists for turn in one or ()]
    fields = [pa.array(map(attrgetter(one.name), flat), one.type) for one in kind.value_type]
    ends = [0]
    for one in lists:
        ends.append(ends[-1] + len(one or ()))
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()),
        pa.StructArray.from_arrays(fields, fields=list(kind.value_type)),
        type=kind,
        mask=pa.array([one is None for one in lists]),
    )
