"""CSV and TSV, with the separators, headers and leftovers that spreadsheets write."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING, NoReturn

from registry.datasets.readers.packed import ending
from registry.datasets.readers.reading import AS_FOUND, HEAD, Reading, looks_like, open_text
from registry.datasets.readers.record import Record
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIELD_LIMIT = 1 << 30  # csv's own limit of 128 KiB would refuse long documents
_SEPARATORS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=([^\r\n])"?\r?\n', re.IGNORECASE)
_TRIED = 20  # records whose fields are counted to find the separator


@dataclass(frozen=True)
class Header:
    """The first line of a table, and what was taken for what.

    Attributes:
        columns: its names.
        unnamed: columns behind them that have no name.
        separator: what stands between fields.
        lines: before the records, with Excel's `sep=;`.
    """

    columns: tuple[str, ...]
    unnamed: int
    separator: str
    lines: int


def read_csv(path: Path, reading: Reading = AS_FOUND) -> Iterator[Record]:
    """Yield a record a line of CSV or TSV; a quoted field may hold line breaks.

    Raises:
        UserError: no header, or a quote that is never closed.
    """
    header = csv_header(path, reading)
    columns, width = header.columns, len(header.columns)
    with open_text(path, reading) as file:
        reader = csv.reader(file, delimiter=header.separator, strict=True)
        while reader.line_num < header.lines:
            next(reader)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                if "unexpected end" in str(error):
                    _unclosed(path, line)
                yield Record(line, None, f"malformed line: {error}")
                continue
            if fields is None:
                return
            if not fields:
                continue
            if len(fields) != width:
                fields = _without_blank_end(fields, width)
                if len(fields) != width:
                    yield Record(line, None, f"{len(fields)} fields where the header has {width}")
                    continue
            yield Record(line, dict(zip(columns, fields, strict=True)))


def csv_columns(path: Path, reading: Reading = AS_FOUND) -> tuple[str, ...]:
    """Return the names in the header of a CSV or TSV file.

    Raises:
        UserError: as `csv_header`.
    """
    return csv_header(path, reading).columns


def csv_header(path: Path, reading: Reading = AS_FOUND) -> Header:
    """Return the header of a CSV or TSV file, with the separator that it is read by.

    Raises:
        UserError: there is none, it is no text in the file's encoding, or it names a column twice.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with open_text(path, reading) as file:
        head = file.read(HEAD)
    said = _SEP_LINE.match(head)
    text = head[said.end() :] if said else head
    separator = reading.separator or (said[1] if said else _separator(text, usual_separator(path)))
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise DataError(f"malformed header: {error}", where=f"{path}:1") from error
    if names is None:
        raise DataError("the file is empty", where=str(path), expected="a header line")
    columns, unnamed = _named(names)
    if not columns:
        raise DataError("the first line names no column", f"{path}:1", expected="a header line")
    _check_names(path, columns, reading)
    return Header(columns, unnamed, separator, reader.line_num + (1 if said else 0))


def usual_separator(path: Path) -> str:
    """Return what stands between fields by the file's ending."""
    return "\t" if ending(path) == ".tsv" else ","


def _separator(head: str, usual: str) -> str:
    """Return the usual separator unless another one divides the first records alike and it not."""
    for one in (usual, *(other for other in _SEPARATORS if other != usual)):
        reader = csv.reader(StringIO(head, newline=""), delimiter=one)
        try:
            widths = [len(fields) for fields in islice(reader, _TRIED) if fields]
        except csv.Error:
            continue
        wide = widths[0] if widths else 0
        if wide > 1 and 2 * widths.count(wide) > len(widths):
            return one
    return usual


def _named(names: list[str]) -> tuple[tuple[str, ...], int]:
    """Return the names up to the last one, and how many empty ones follow."""
    count = len(names)
    while count and not names[count - 1].strip():
        count -= 1
    return tuple(names[:count]), len(names) - count


def _check_names(path: Path, names: tuple[str, ...], reading: Reading) -> None:
    for name in names:
        told = looks_like(name)
        if told or "\0" in name:
            encoding = reading.encoding or "UTF-8"
            raise DataError(
                f"the header is no {encoding} text" + (f": {told}" if told else ""),
                where=f"{path}:1",
                fix="name the file's encoding under encoding:, or save it again as UTF-8",
            )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"column '{repeated[0]}' occurs twice in the header", where=f"{path}:1")


def _without_blank_end(fields: list[str], width: int) -> list[str]:
    """Drop empty fields behind the named columns."""
    count = len(fields)
    while count > width and not fields[count - 1]:
        count -= 1
    return fields[:count]


def _unclosed(path: Path, line: int) -> NoReturn:
    raise DataError(
        "a quote opened here is never closed, so the rest of the file is one field",
        where=f"{path}:{line}",
        fix='close it, or write a quote inside a field as ""',
    )
