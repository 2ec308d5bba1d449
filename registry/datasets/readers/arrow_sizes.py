"""The unpacked size of an Arrow file, by its messages' headers alone: nothing is unpacked.

Arrow's own reader unpacks a whole batch at once, however large it says it is. The headers are
flatbuffers (Message.fbs in Arrow's format); the few fields that are needed are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTINUES = 0xFFFFFFFF
_DICTIONARY, _ROWS = 2, 3  # kinds of message; a schema is 1
_HEADER_LIMIT = 1 << 26  # bytes of one header; a real one has some hundred
_STORED = -1  # the length of a buffer that was left as it is


@dataclass(frozen=True, slots=True)
class UnpackedSize:
    """What a file's batches come to."""

    size: int
    rows: int


def unpacked_size(file: BinaryIO) -> UnpackedSize:
    """Add up the batches of a stream that begins where `file` stands.

    Raises:
        ValueError: it is no Arrow stream.
    """
    size = rows = 0
    try:
        for message in _messages(file):
            size += message.size
            rows += message.rows
    except struct.error as error:
        raise ValueError("a header is cut short or out of bounds") from error
    return UnpackedSize(size, rows)


def _messages(file: BinaryIO) -> Iterator[UnpackedSize]:
    while True:
        word = file.read(4)
        if len(word) < 4:  # noqa: PLR2004 - the stream may end without a mark
            return
        (length,) = struct.unpack("<I", word)
        if length == _CONTINUES:  # written since Arrow 0.15
            (length,) = struct.unpack("<I", file.read(4))
        if length == 0:
            return
        if length > _HEADER_LIMIT:
            raise ValueError(f"a header of {length:,} bytes")
        head = file.read(length)
        body = file.tell()
        message = _Table.root(head)
        (body_length,) = message.number(3, "<q")
        if body_length < 0:
            raise ValueError("a body of negative length")
        yield _sizes(file, body, message)
        file.seek(body + body_length)


def _sizes(file: BinaryIO, body: int, message: _Table) -> UnpackedSize:
    (kind,) = message.number(1, "<B")
    batch = message.table(2)
    if kind == _DICTIONARY and batch is not None:
        batch = batch.table(1)
    if batch is None or kind not in (_DICTIONARY, _ROWS):
        return UnpackedSize(0, 0)
    (rows,) = batch.number(0, "<q")
    buffers = batch.pairs(2)
    if batch.table(3) is None:  # not compressed
        return UnpackedSize(sum(length for _, length in buffers), rows)
    return UnpackedSize(sum(_length(file, body + at, length) for at, length in buffers), rows)


def _length(file: BinaryIO, at: int, length: int) -> int:
    """Return what a compressed buffer says that it unpacks to."""
    if length == 0:
        return 0
    file.seek(at)
    (said,) = struct.unpack("<q", file.read(8))
    return length if said == _STORED else max(0, int(said))


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a flatbuffer; a field that it lacks is 0 or None."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, *struct.unpack_from("<I", data, 0))

    def _field(self, number: int) -> int | None:
        (back,) = struct.unpack_from("<i", self.data, self.at)
        places = self.at - back
        if places < 0:
            raise ValueError("a header points before its beginning")
        (size,) = struct.unpack_from("<H", self.data, places)
        entry = 4 + 2 * number
        if entry >= size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, places + entry)
        return self.at + offset if offset else None

    def number(self, field: int, form: str) -> tuple[int]:
        at = self._field(field)
        if at is None:
            return (0,)
        (found,) = struct.unpack_from(form, self.data, at)
        return (int(found),)

    def table(self, field: int) -> _Table | None:
        at = self._field(field)
        if at is None:
            return None
        (offset,) = struct.unpack_from("<I", self.data, at)
        return _Table(self.data, at + offset)

    def pairs(self, field: int) -> list[tuple[int, int]]:
        at = self._field(field)
        if at is None:
            return []
        (offset,) = struct.unpack_from("<I", self.data, at)
        (count,) = struct.unpack_from("<I", self.data, at + offset)
        if count * 16 > len(self.data):
            raise ValueError("a header lists more buffers than it has room for")
        first = at + offset + 4
        return [struct.unpack_from("<qq", self.data, first + 16 * i) for i in range(count)]
