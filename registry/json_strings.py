"""JSON's strings as columns: what many of them say, and how they are usually written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Places = NDArray[np.int64]
    Flags = NDArray[np.bool_]

BACKSLASH, QUOTE = 92, 34
_MEANS = np.zeros(256, np.uint8)  # what a letter behind a backslash stands for
for _letter, _meant in zip(b'"\\nrtbf', b'"\\\n\r\t\b\f', strict=True):
    _MEANS[_letter] = _meant


@dataclass(frozen=True)
class Strings:
    """Strings of JSON.

    Attributes:
        texts: what they say.
        written: between the quotes, as Python writes them with `ensure_ascii=False`.
        valid: whether each is a string of JSON that UTF-8 can say; the others say nothing.
    """

    texts: pa.Array
    written: pa.Array
    valid: Flags

    def filter(self, wanted: Flags) -> Strings:
        """Return some of them."""
        return Strings(self.texts.filter(wanted), self.written.filter(wanted), self.valid[wanted])


def read_strings(raw: pa.Array) -> Strings:
    """Read strings as they stand between their quotes.

    Args:
        raw: of valid UTF-8 without control characters; pa.string() without nulls.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    starts, letters = bytes_of(raw)
    escaped = np.zeros(len(raw), np.bool_)
    escaped[_owners(starts, np.flatnonzero(letters == BACKSLASH))] = True
    valid = np.ones(len(raw), np.bool_)
    valid[_owners(starts, np.flatnonzero(letters == QUOTE))] = False
    valid |= escaped
    if not escaped.any():
        texts = pc.if_else(pa.array(valid), raw, "")
        return Strings(texts, texts, valid)
    places = np.flatnonzero(escaped)
    some = raw.take(pa.array(places))
    read, usual = _unescaped(some)
    one_by_one = [_read_one(text) for text in some.filter(~usual).to_pylist()]
    valid[places[~usual]] = [one is not None for one in one_by_one]
    read = _replaced(read, ~usual, [one.text if one else "" for one in one_by_one])
    some = _replaced(some, ~usual, [one.written if one else "" for one in one_by_one])
    texts, written = pc.replace_with_mask(raw, escaped, read), raw
    if not usual.all():
        written = pc.replace_with_mask(raw, escaped, some)
    if not valid.all():
        texts, written = (pc.if_else(pa.array(valid), one, "") for one in (texts, written))
    return Strings(texts, written, valid)


def bytes_of(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return where each text begins, and where the last one ends, and the bytes of them all."""
    starts = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
    data = texts.buffers()[2]
    letters = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return starts - starts[0], letters[starts[0] : starts[-1]]


def escapes_of(slashes: Places, breaks: Flags | None = None) -> Flags:
    """Return which backslashes begin an escape: not those that one before them escapes.

    Args:
        slashes: where all of them are.
        breaks: of each but the first, whether another text begins between it and the one before.
    """
    begins = np.ones(len(slashes), np.bool_)
    begins[1:] = np.diff(slashes) != 1
    if breaks is not None:
        begins[1:] |= breaks
    number = np.arange(len(slashes))
    in_run = number - np.maximum.accumulate(np.where(begins, number, 0))
    return in_run % 2 == 0


def _unescaped(raw: pa.Array) -> tuple[pa.Array, Flags]:
    r"""Return what strings say that hold backslashes, and of which of them that is known.

    It is of those with the short escapes that Python writes; not of \u and of what is no JSON.
    """
    import pyarrow as pa

    starts, letters = bytes_of(raw)
    slashes = np.flatnonzero(letters == BACKSLASH)
    owners = _owners(starts, slashes)
    first = escapes_of(slashes, np.diff(owners) != 0)
    escapes, owners = slashes[first], owners[first]
    wrong = np.zeros(len(raw), np.bool_)
    last = escapes + 1 == starts[owners + 1]  # nothing is behind it in its own text
    wrong[owners[last]] = True
    escapes, owners = escapes[~last], owners[~last]
    behind = escapes + 1
    meant = _MEANS[letters[behind]]
    wrong[owners[meant == 0]] = True
    bare = letters == QUOTE
    bare[behind] = False
    wrong[_owners(starts, np.flatnonzero(bare))] = True
    said = letters.copy()
    said[behind] = meant
    kept = np.ones(len(letters), np.bool_)
    kept[escapes] = False
    ends = (starts - np.searchsorted(escapes, starts)).astype(np.int32)
    data = pa.py_buffer(said[kept].tobytes())
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(ends.tobytes()), data), ~wrong


def _owners(starts: NDArray[np.int32], places: Places) -> Places:
    """Return in which text each place is."""
    return np.searchsorted(starts, places, "right") - 1


@dataclass(frozen=True, slots=True)
class _One:
    text: str
    written: str


def _read_one(raw: str) -> _One | None:
    """Return what one string says and how it is usually written; None if it is none."""
    try:
        text = json.loads(f'"{raw}"')
        text.encode()
    except ValueError:  # a UnicodeEncodeError is one
        return None
    return _One(text, json.dumps(text, ensure_ascii=False)[1:-1])


def _replaced(texts: pa.Array, where: Flags, others: list[str]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.replace_with_mask(texts, where, pa.array(others, pa.string())) if others else texts
