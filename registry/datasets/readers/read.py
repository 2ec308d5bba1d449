"""The reader of data files: records one by one with their lines; nothing is dropped silently.

A record that can't be read is yielded with its `error` and becomes a reject. A file that can't be
read at all is the user's mistake: one `UserError` naming file and, where known, line.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry.datasets.readers.arrow import arrow_columns, read_arrow
from registry.datasets.readers.packed import PACKED
from registry.datasets.readers.parquet import parquet_columns, read_parquet
from registry.datasets.readers.record import Record
from registry.datasets.readers.text import csv_columns, read_csv, read_json, read_jsonl, read_txt
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["KNOWN", "Record", "columns_of", "file_type", "read_records"]

_NAMED = 6  # files that are named as what is there instead
_TEXT: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".txt": read_txt,
}
_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    **_TEXT,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
_COLUMNS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    ".csv": csv_columns,
    ".tsv": csv_columns,
    ".parquet": parquet_columns,
    ".arrow": arrow_columns,
    ".feather": arrow_columns,
    ".txt": lambda _: ("text",),
}
KNOWN = f"{', '.join(_READERS)}; a text may be packed ({' or '.join(PACKED)})"
"""The endings of files that can be read, for messages."""


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of `path`, read by its suffix.

    Raises:
        UserError: no such file, an unknown suffix, no permission, or a file that is broken as a
            whole (a JSON array that does not parse, a quote that is never closed).
    """
    reader = _READERS[_checked(path)]
    with _told(path):
        yield from reader(path)


def columns_of(path: Path) -> tuple[str, ...] | None:
    """Return the columns that the file declares (CSV, TSV, Parquet, Arrow); None: rows decide.

    Raises:
        UserError: as `read_records`, or a header that is missing or names a column twice.
    """
    declared = _COLUMNS.get(_checked(path))
    with _told(path):
        return declared(path) if declared else None


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
