"""Text files: CSV and TSV, JSON arrays, JSON lines, and plain text, packed or not."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from registry.datasets.readers.packed import PACKED, open_bytes
from registry.datasets.readers.record import Record
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_FIELD_LIMIT = 1 << 30  # csv's own limit of 128 KiB would refuse long documents
_SPACE = re.compile(r"[ \t\r\n]*")


def _open_text(path: Path) -> io.TextIOWrapper:
    """Open as UTF-8 without its byte-order mark; invalid bytes become lone surrogates.

    Whoever makes a row of them finds that it can't be encoded, and rejects that row alone.
    """
    file = open_bytes(path)
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


# ------------------------------------------------------------------------------- CSV and TSV


def read_csv(path: Path) -> Iterator[Record]:
    """Yield a record a line of CSV or TSV; a quoted field may hold line breaks.

    Raises:
        UserError: no header, or a quote that is never closed.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with _open_text(path) as file:
        reader = csv.reader(file, delimiter=_separator(path), strict=True)
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


def csv_columns(path: Path) -> tuple[str, ...]:
    """Return the names in the header of a CSV or TSV file.

    Raises:
        UserError: there is none, it is no UTF-8, or it names a column twice.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with _open_text(path) as file:
        return _header(path, csv.reader(file, delimiter=_separator(path), strict=True))


def _separator(path: Path) -> str:
    kinds = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    return "\t" if kinds[-1] == ".tsv" else ","


def _header(path: Path, reader: Iterator[list[str]]) -> tuple[str, ...]:
    try:
        names = next(reader, None)
    except csv.Error as error:
        raise DataError(f"malformed header: {error}", where=f"{path}:1") from error
    if not names:
        raise DataError("the file is empty", where=str(path), expected="a header line")
    if any(_is_no_text(name) for name in names):
        raise DataError(
            "the header is no UTF-8 text",
            where=f"{path}:1",
            expected="a file in UTF-8",
            fix="save it again as UTF-8; a spreadsheet is exported as CSV (UTF-8)",
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"column '{repeated[0]}' occurs twice in the header", where=f"{path}:1")
    return tuple(names)


def _is_no_text(name: str) -> bool:
    """Whether a header's name has bytes that are not UTF-8 (kept as surrogates), or a NUL."""
    return any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in name)


def _unclosed(path: Path, line: int) -> NoReturn:
    raise DataError(
        "a quote opened here is never closed, so the rest of the file is one field",
        where=f"{path}:{line}",
        fix='close it, or write a quote inside a field as ""',
    )


# -------------------------------------------------------------------------- JSON, JSON lines


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield a record a line; a line that isn't a JSON object is one with its error."""
    with open_bytes(path) as file:
        for line, raw in enumerate(file, 1):
            try:
                value = _decode(raw)
            except _DOUBTFUL:
                if (record := _exactly(line, raw)) is not None:
                    yield record
            else:
                yield _object(line, value)


def _exactly(line: int, raw: bytes) -> Record | None:
    """Return the record of a line that isn't decoded at once; None where it is blank."""
    data = (raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw).removesuffix(b"\n")
    if not data.strip():
        return None
    try:
        value = _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        return Record(line, None, f"invalid UTF-8: byte {data[error.start]:#04x}")
    except (ValueError, RecursionError) as error:
        return Record(line, None, f"malformed JSON: {_reason(error)}")
    return _object(line, value)


def read_json(path: Path) -> Iterator[Record]:
    """Yield the elements of an array; a file of one object a line is read as JSON lines.

    Raises:
        UserError: it is neither, or does not parse.
    """
    if _has_object_first(path):
        _refuse_one_object(path)
        yield from read_jsonl(path)
        return
    done = yield from _decoded_elements(path)
    if done is None:
        return
    with _open_text(path) as file:
        text = file.read()
    try:
        yield from islice(_elements(path, text), done, None)
    except json.JSONDecodeError as error:
        at = f"{path}:{error.lineno}:{error.colno}"
        raise DataError(f"malformed JSON: {error.msg}", where=at) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"malformed JSON: {_reason(error)}", where=str(path)) from error


def _decoded_elements(path: Path) -> Generator[Record, None, int | None]:
    """Yield an array's elements as far as they are decoded at once.

    Returns:
        How many they are where another one isn't; None: those are all.
    """
    with open_bytes(path) as file:
        data = file.read().removeprefix(codecs.BOM_UTF8)
    number = 0
    try:
        for number, raw in enumerate(_cut(data)):
            value = _decode(raw)
            yield _object(number + 1, value)
    except _DOUBTFUL:
        return number
    return None


def _elements(path: Path, text: str) -> Iterator[Record]:
    """Yield an array's elements one by one: parsed, they take several times the text's memory."""
    at = _space(text, 0)
    if text[at : at + 1] != "[":
        _DECODER.decode(text)
        raise DataError("not a list of records", where=str(path), expected="a JSON array")
    at = _space(text, at + 1)
    number = 0
    ended = text[at : at + 1] == "]"
    while not ended:
        value, at = _DECODER.raw_decode(text, at)
        at = _space(text, at)
        if text[at : at + 1] not in (",", "]"):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        ended = text[at] == "]"
        if not ended:
            at = _space(text, at + 1)
        number += 1
        yield _object(number, value)
    if _space(text, at + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)


def _has_object_first(path: Path) -> bool:
    with _open_text(path) as file:
        while (line := file.readline(1 << 16)) and not line.strip():
            pass
    return line.lstrip().startswith("{")


def _refuse_one_object(path: Path) -> None:
    """Refuse a file that is one JSON object over several lines, and say what is in it."""
    with _open_text(path) as file:
        while (first := file.readline()) and not first.strip():
            pass
        if _parsed(first) is not None:
            return
        whole = _parsed(first + file.read())
    if whole is not None:
        raise DataError(
            f"one JSON object with the keys {', '.join(list(whole)[:5])}, not a list of records",
            where=str(path),
            expected="a JSON array, or an object a line",
        )


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _object(line: int, value: object) -> Record:
    if isinstance(value, dict):
        return Record(line, value)
    return Record(line, None, f"not a JSON object: {type(value).__name__}")


# What this decoder takes, it gives as Python's does (tests/unit/test_decoded.py), the last of two
# equal keys too. It refuses more, such as half of a surrogate pair or a number without end, and has
# other words for it: whatever it refuses is left to Python's.
_decode = msgspec.json.Decoder().decode
_cut = msgspec.json.Decoder(list[msgspec.Raw]).decode
_DOUBTFUL = (ValueError, RecursionError)


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


# ------------------------------------------------------------------------------- plain text


def read_txt(path: Path) -> Iterator[Record]:
    """Yield a record with the column `text` for each line that isn't blank."""
    with open_bytes(path) as file:
        for line, raw in enumerate(file, 1):
            data = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
            text = data.decode(errors="surrogateescape").rstrip("\r\n")
            if text.strip():
                yield Record(line, {"text": text})
