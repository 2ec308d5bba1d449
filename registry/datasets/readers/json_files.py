"""JSON: an array, an object a line, objects over several lines, and Python's notation of them.

Which of them a file is, its beginning says; its ending decides only what is doubtful.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from registry.datasets.readers.packed import ending
from registry.datasets.readers.reading import (
    AS_FOUND,
    HEAD,
    INVALID_UTF8,
    Reading,
    in_other_encodings,
    open_text,
    open_utf8,
)
from registry.datasets.readers.record import Record
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

JsonForm = Literal["array", "lines", "objects", "python"]
"""How records are written: `objects` go over several lines, `python` are dicts as Python prints."""

_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_ARRAY_OF_OBJECTS = re.compile(r"\s*\[\s*\{")
_NEXT = re.compile(r"[ \t]*,?[ \t]*(\r?\n\s*\{|\s*\Z)")  # what stands behind an object


def read_json(path: Path, reading: Reading = AS_FOUND) -> Iterator[Record]:
    """Yield the records of a `.json`, `.jsonl` or `.ndjson` file.

    A line of JSON lines that isn't an object is a record with its error.

    Raises:
        UserError: it is no JSON lines and does not parse, or is one object alone.
    """
    form = json_form(path, reading)
    read = {"array": _array, "objects": _objects, "python": _python_lines, "lines": _lines}
    yield from read[form](path, reading)


def json_form(path: Path, reading: Reading = AS_FOUND) -> JsonForm:
    """Return how the records of a file are written, by its beginning."""
    with open_text(path, reading) as file:
        head = file.read(HEAD)
        form = _form(head, array=ending(path) == ".json")
        if form == "lines" and len(head) == HEAD and ending(path) == ".json":
            form = _form(head + file.read(), array=True)  # its first object may be all of it
    return form


def _form(head: str, *, array: bool) -> JsonForm:
    start = _space(head, 0)
    if head[start : start + 1] != "{":
        return "array" if array or _ARRAY_OF_OBJECTS.match(head) else "lines"
    first = head[start:].partition("\n")[0]
    if _parsed(first) is not None:
        return "lines"
    if _python_value(first) is not None:
        return "python"
    try:
        _, end = _DECODER.raw_decode(head, start)
    except (ValueError, RecursionError):
        return "lines"
    return "objects" if _NEXT.match(head, end) else "lines"


# ------------------------------------------------------------------------------ a record a line


def _lines(path: Path, reading: Reading) -> Iterator[Record]:
    with open_utf8(path, reading) as file:
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
    data = (raw.removeprefix(_BOM) if line == 1 else raw).removesuffix(b"\n")
    if not data.strip():
        return None
    try:
        value = _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        return Record(line, None, f"{INVALID_UTF8}: {in_other_encodings(data, error.start)}")
    except (ValueError, RecursionError) as error:
        return Record(line, None, f"malformed JSON: {_reason(error)}")
    return _object(line, value)


def _python_lines(path: Path, reading: Reading) -> Iterator[Record]:
    """Yield the records of lines that Python printed; one of them may be JSON after all."""
    with open_utf8(path, reading) as file:
        for line, raw in enumerate(file, 1):
            data = raw.removeprefix(_BOM) if line == 1 else raw
            value = _python_value(data.decode(errors="surrogateescape")) if data.strip() else None
            record = Record(line, value) if value is not None else _exactly(line, raw)
            if record is not None:
                yield record


def _python_value(text: str) -> dict[str, Any] | None:
    """Return a dict as Python prints it, if it is one of values that JSON has; nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python doesn't know
            value = _as_json(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _as_json(value: object) -> Any:
    """Return a value as JSON has it.

    Raises:
        ValueError: JSON has no such value.
    """
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    message = f"not a value of JSON: {type(value).__name__}"
    raise ValueError(message)


# ------------------------------------------------------------------------ arrays and objects


def _array(path: Path, reading: Reading) -> Iterator[Record]:
    done = yield from _decoded_elements(path, reading)
    if done is None:
        return
    with open_text(path, reading) as file:
        text = file.read()
    yield from _or_refused(path, islice(_elements(path, text), done, None))


def _objects(path: Path, reading: Reading) -> Iterator[Record]:
    with open_text(path, reading) as file:
        text = file.read()
    yield from _or_refused(path, _following(path, text))


def _or_refused(path: Path, records: Iterator[Record]) -> Iterator[Record]:
    """Yield records; what doesn't parse is the file's fault as a whole."""
    try:
        yield from records
    except json.JSONDecodeError as error:
        at = f"{path}:{error.lineno}:{error.colno}"
        raise DataError(f"malformed JSON: {error.msg}", where=at) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"malformed JSON: {_reason(error)}", where=str(path)) from error


def _decoded_elements(path: Path, reading: Reading) -> Generator[Record, None, int | None]:
    """Yield an array's elements as far as they are decoded at once.

    Returns:
        How many they are where another one isn't; None: those are all.
    """
    with open_utf8(path, reading) as file:
        data = file.read().removeprefix(_BOM)
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


def _following(path: Path, text: str) -> Iterator[Record]:
    """Yield objects that follow each other, each with the line where it begins."""
    begin = _space(text, 0)
    line = 1 + text.count("\n", 0, begin)
    is_first = True
    while begin < len(text):
        value, end = _DECODER.raw_decode(text, begin)
        behind = _NEXT.match(text, end)
        if behind is None:
            raise json.JSONDecodeError("Expecting an object on a line of its own", text, end)
        following = behind.end() - 1 if behind[1].strip() else len(text)
        if is_first and following == len(text) and ending(path) == ".json":
            raise DataError(
                f"one JSON object with the keys {', '.join(list(value)[:5])}, not a list of "
                "records",
                where=str(path),
                expected="a JSON array, or an object a line",
            )
        is_first = False
        yield _object(line, value)
        line += text.count("\n", begin, following)
        begin = following


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
