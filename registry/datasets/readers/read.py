"""The reader of data files: records one by one with their lines; nothing is dropped silently.

A record that can't be read is yielded with its `error` and becomes a reject. A file that can't be
read at all is the user's mistake: one `UserError` naming file and, where known, line.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry.datasets.readers.arrow import arrow_schema, read_arrow
from registry.datasets.readers.delimited import (
    csv_columns,
    csv_header,
    read_csv,
    usual_separator,
)
from registry.datasets.readers.features import decoder_of
from registry.datasets.readers.json_files import json_form, read_json
from registry.datasets.readers.packed import PACKED
from registry.datasets.readers.parquet import parquet_schema, read_parquet
from registry.datasets.readers.reading import AS_FOUND, Reading, encoding_of, refuse_other_kind
from registry.datasets.readers.record import Record
from registry.datasets.readers.text import read_txt
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

__all__ = ["KNOWN", "Reading", "Record", "columns_of", "file_type", "read_records", "taken_as"]

_NAMED = 6  # files that are named as what is there instead
_TEXT: dict[str, Callable[[Path, Reading], Iterator[Record]]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".txt": read_txt,
}
_TABLES: dict[str, Callable[[Path], pa.Schema]] = {
    ".parquet": parquet_schema,
    ".arrow": arrow_schema,
    ".feather": arrow_schema,
}
_READERS: dict[str, Callable[[Path, Reading], Iterator[Record]]] = {
    **_TEXT,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
KNOWN = f"{', '.join(_READERS)}; a text may be packed ({' or '.join(PACKED)})"
"""The endings of files that can be read, for messages."""


def read_records(path: Path, reading: Reading = AS_FOUND) -> Iterator[Record]:
    """Yield the records of `path`, read by its suffix, as the spec says that it is written.

    Raises:
        UserError: no such file, an unknown suffix, no permission, or a file that is broken as a
            whole (a JSON array that does not parse, a quote that is never closed).
    """
    reader = _READERS[_checked(path)]
    with _told(path):
        refuse_other_kind(path)
        yield from reader(path, reading)


def columns_of(path: Path, reading: Reading = AS_FOUND) -> tuple[str, ...] | None:
    """Return the columns that the file declares (CSV, TSV, Parquet, Arrow); None: rows decide.

    Raises:
        UserError: as `read_records`, or a header that is missing or names a column twice.
    """
    kind = _checked(path)
    with _told(path):
        refuse_other_kind(path)
        if kind in (".csv", ".tsv"):
            return csv_columns(path, reading)
        if kind in _TABLES:
            return tuple(_TABLES[kind](path).names)
    return ("text",) if kind == ".txt" else None


def taken_as(path: Path, reading: Reading = AS_FOUND) -> tuple[str, ...]:
    """Say how a file is read where that isn't as its ending says, each thing by itself.

    Raises:
        UserError: as `columns_of`.
    """
    kind = _checked(path)
    with _told(path):
        refuse_other_kind(path)
        if kind in _TABLES:
            return _columns_as(path, kind, reading)
        encoding = encoding_of(path, reading)
        said = [] if encoding == "utf-8" else [reading.encoding or encoding.upper()]
        if kind in (".csv", ".tsv"):
            said += _table_as(path, reading)
        elif kind != ".txt":
            said += _json_as(path, kind, reading)
        return tuple(said)


def _columns_as(path: Path, kind: str, reading: Reading) -> tuple[str, ...]:
    try:
        decoder = decoder_of(_TABLES[kind](path), reading.encoding)
    except UnicodeDecodeError as error:  # names inside columns are texts too
        raise DataError("a column's name is no UTF-8", where=str(path)) from error
    return tuple(f"{name}: {what}" for name, what in decoder.said.items()) if decoder else ()


def _table_as(path: Path, reading: Reading) -> list[str]:
    header = csv_header(path, reading)
    said = []
    if header.separator != usual_separator(path):
        said.append(f"separator {_SHOWN.get(header.separator, header.separator)}")
    if header.unnamed:
        said.append(f"columns without a name left out: {header.unnamed}")
    return said


def _json_as(path: Path, kind: str, reading: Reading) -> list[str]:
    form = json_form(path, reading)
    usual = ("array", "lines") if kind == ".json" else ("lines",)
    return [] if form in usual else [_FORMS[form]]


_SHOWN = {"\t": "tab"}
_FORMS = {
    "array": "a JSON array",
    "objects": "JSON objects, not one a line",
    "python": "dicts as Python prints them",
}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say which file it is that the system can't read."""
    try:
        yield
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(path)) from error


def file_type(path: Path) -> str | None:
    """Return the suffix that says how a file is read, without its packing; None: it isn't."""
    suffix = path.suffix.lower()
    if suffix in PACKED:
        inner = Path(path.stem).suffix.lower()
        return inner if inner in _TEXT else None
    return suffix if suffix in _READERS else None


def _checked(path: Path) -> str:
    """Return the type of a file that is there and of a known one."""
    found = file_type(path)
    if not path.exists():
        raise DataError("no such file", where=str(path), fix=_neighbours(path))
    if not path.is_file() or found is None:
        raise DataError(
            "not a data file that can be read",
            where=str(path),
            expected=f"a file that ends in {KNOWN}",
        )
    return found


def _neighbours(path: Path) -> str | None:
    """Return a hint with the data files that are there instead, if any."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} is missing too"
    there = sorted(p.name for p in path.parent.iterdir() if file_type(p) is not None)
    return f"that folder has {', '.join(there[:_NAMED])}" if there else None
