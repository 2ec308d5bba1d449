"""Reading data files record by record, with the line of each; nothing is dropped silently.

A record that can't be read is yielded with its `error` and becomes a reject. A file that can't be
read at all is the user's mistake: one `UserError` naming file and, where known, line.
"""

from __future__ import annotations

import codecs
import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from registry.errors import UserError

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PARQUET_BATCH = 512  # rows; a value that is repeated is unpacked as often
_BOMB_FROM = 1 << 26  # bytes unpacked, or rows, below which a file is let be
_BOMB_RATIO = 1_000  # of bytes unpacked
_BOMB_ROWS = 100  # a byte
_FIELD_LIMIT = 1 << 30  # csv's own limit of 128 KiB would refuse long documents
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file: its columns, or why it can't be read.

    `line` is the physical line where it begins, for JSON arrays the element's number and for
    Parquet the row's number, all from 1.
    """

    line: int
    value: dict[str, Any] | None
    error: str | None = None


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of `path`, read by its suffix.

    Raises:
        UserError: no such file, an unknown suffix, no permission, or a file that is broken as a
            whole (a JSON array that does not parse, a quote that is never closed).
    """
    reader = _reader(path)
    try:
        yield from reader(path)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror or error}", where=str(path)) from error


def columns_of(path: Path) -> tuple[str, ...] | None:
    """Return the columns that the file declares (CSV, TSV, Parquet); None where rows decide.

    Raises:
        UserError: as `read_records`, or a header that is missing or names a column twice.
    """
    suffix = _checked(path)
    if suffix in _SEPARATORS:
        with _open_text(path) as file:
            return _header(path, csv.reader(file, delimiter=_SEPARATORS[suffix], strict=True))
    if suffix == ".parquet":
        return tuple(_parquet(path).schema_arrow.names)
    return ("text",) if suffix == ".txt" else None


def _reader(path: Path) -> Callable[[Path], Iterator[Record]]:
    return _READERS[_checked(path)]


def _checked(path: Path) -> str:
    """Return the suffix of a file that is there and of a known type."""
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError("no such file", where=str(path), fix=_neighbours(path))
    if not path.is_file() or suffix not in _READERS:
        raise UserError(
            "not a data file that can be read",
            where=str(path),
            expected=f"a file that ends in {', '.join(_READERS)}",
        )
    return suffix


def _neighbours(path: Path) -> str | None:
    """Return a hint with the data files that are there instead, if any."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} is missing too"
    there = sorted(p.name for p in path.parent.iterdir() if p.suffix.lower() in _READERS)
    return f"that folder has {', '.join(there[:6])}" if there else None


def _open_text(path: Path) -> io.TextIOWrapper:
    """Open as UTF-8 without its byte-order mark; invalid bytes become lone surrogates.

    Whoever makes a row of them finds that it can't be encoded, and rejects that row alone.
    """
    return path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="")


# ------------------------------------------------------------------------------- CSV and TSV


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(_FIELD_LIMIT)
    with _open_text(path) as file:
        reader = csv.reader(file, delimiter=_SEPARATORS[path.suffix.lower()], strict=True)
        header = _header(path, reader)
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
            if len(fields) != len(header):
                yield Record(line, None, f"{len(fields)} fields where the header has {len(header)}")
                continue
            yield Record(line, dict(zip(header, fields, strict=True)))


def _header(path: Path, reader: Iterator[list[str]]) -> tuple[str, ...]:
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise UserError(f"malformed header: {error}", where=f"{path}:1") from error
    if not names:
        raise UserError("the file is empty", where=str(path), expected="a header line")
    if any(_is_no_text(name) for name in names):
        raise UserError(
            "the header is no UTF-8 text",
            where=f"{path}:1",
            expected="a file in UTF-8",
            fix="save it again as UTF-8; a spreadsheet is exported as CSV (UTF-8)",
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"column '{repeated[0]}' occurs twice in the header", where=f"{path}:1")
    return tuple(names)


def _is_no_text(name: str) -> bool:
    """Whether a header's name has bytes that are not UTF-8 (kept as surrogates), or a NUL."""
    return any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in name)


def _unclosed(path: Path, line: int) -> NoReturn:
    raise UserError(
        "a quote opened here is never closed, so the rest of the file is one field",
        where=f"{path}:{line}",
        fix='close it, or write a quote inside a field as ""',
    )


# -------------------------------------------------------------------------- JSON, JSON lines


def _read_jsonl(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            data = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
            if data.strip():
                yield _json_line(line, data)


def _json_line(line: int, data: bytes) -> Record:
    try:
        value = _loads(data.decode())
    except UnicodeDecodeError as error:
        return Record(line, None, f"invalid UTF-8: byte {data[error.start]:#04x}")
    except (ValueError, RecursionError) as error:
        return Record(line, None, f"malformed JSON: {_reason(error)}")
    return _object(line, value)


def _read_json(path: Path) -> Iterator[Record]:
    """Read an array of objects; a file of one object a line is read as JSON lines."""
    with _open_text(path) as file:
        text = file.read()
    if text.lstrip().startswith("{"):
        yield from _read_jsonl(path)
        return
    try:
        values = _loads(text)
    except json.JSONDecodeError as error:
        at = f"{path}:{error.lineno}:{error.colno}"
        raise UserError(f"malformed JSON: {error.msg}", where=at) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"malformed JSON: {_reason(error)}", where=str(path)) from error
    if not isinstance(values, list):
        raise UserError("not a list of records", where=str(path), expected="a JSON array")
    for number, value in enumerate(values, 1):
        yield _object(number, value)


def _object(line: int, value: object) -> Record:
    if isinstance(value, dict):
        return Record(line, value)
    return Record(line, None, f"not a JSON object: {type(value).__name__}")


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


# --------------------------------------------------------------------------- Parquet and text


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"not a Parquet file: {error}", where=str(path)) from error
    _refuse_bomb(path, file.metadata)
    return file


def _refuse_bomb(path: Path, metadata: Any) -> None:
    """Refuse a small file that unpacks to more than any text of its size does.

    A repeated value takes a few bits a row, so rows count too, and not the unpacked bytes alone.
    """
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    unpacked = sum(group.total_byte_size for group in groups)
    size = path.stat().st_size
    if max(unpacked, metadata.num_rows) > _BOMB_FROM and (
        unpacked > _BOMB_RATIO * size or metadata.num_rows > _BOMB_ROWS * size
    ):
        raise UserError(
            f"{size} bytes that unpack to {unpacked} in {metadata.num_rows} rows",
            where=str(path),
            expected=f"at most {_BOMB_RATIO} times the bytes, and {_BOMB_ROWS} rows a byte",
            fix="write it with less compression if it is what it seems",
        )


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa

    with _parquet(path) as file:
        done = 0
        try:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                yield from _batch_rows(done + 1, batch)
                done += batch.num_rows
        except pa.ArrowException as error:
            where = f"{path}: row {done + 1} or later"
            raise UserError(f"a damaged Parquet file: {error}", where=where) from error


def _batch_rows(first: int, batch: Any) -> Iterator[Record]:
    try:
        values = batch.to_pylist()
    except UnicodeDecodeError:
        yield from (_batch_row(first + i, batch.slice(i, 1)) for i in range(batch.num_rows))
        return
    yield from (Record(first + i, value) for i, value in enumerate(values))


def _batch_row(number: int, batch: Any) -> Record:
    try:
        return Record(number, batch.to_pylist()[0])
    except UnicodeDecodeError:
        return Record(number, None, "invalid UTF-8")


def _read_text(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            data = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
            text = data.decode(errors="surrogateescape").rstrip("\r\n")
            if text.strip():
                yield Record(line, {"text": text})


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
