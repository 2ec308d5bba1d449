"""Text files as they are, or unpacked from gzip (.gz) and Zstandard (.zst) while they are read."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, Protocol

from registry.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import WriteableBuffer

PACKED = (".gz", ".zst")
_CHUNK = 1 << 20  # bytes unpacked at a time
_BOMB_FROM = 1 << 26  # bytes unpacked, below which a file is let be
_BOMB_RATIO = 250  # of bytes unpacked; JSON lines take a tenth of their size, rarely a hundredth


def ending(path: Path) -> str:
    """Return the suffix of a file without its packing, in lower case."""
    kinds = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    return kinds[-1] if kinds else ""


class _Source(Protocol):
    """What unpacks: Python's gzip, or pyarrow's stream."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a text file for reading; what is compressed is unpacked on the way.

    Reading it raises `UserError` where the file is damaged, cut short, or unpacks to far more
    than any text of its size does.

    Raises:
        OSError: it can't be opened.
    """
    packing = path.suffix.lower()
    if packing == ".gz":
        return _unpacked(path, gzip.GzipFile(filename=path, mode="rb"))
    if packing == ".zst":
        import pyarrow as pa

        # pyarrow is here already and reads the frames that the `zstd` program writes.
        return _unpacked(path, pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def _unpacked(path: Path, source: _Source) -> io.BufferedReader:
    return io.BufferedReader(_UnpackedText(path, source), _CHUNK)


class _UnpackedText(io.RawIOBase):
    """The text of a compressed file, counted, so that a bomb is refused before it fills memory."""

    def __init__(self, path: Path, source: _Source) -> None:
        super().__init__()
        self._path = path
        self._source = source
        self._size = path.stat().st_size
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        try:
            data = self._source.read(len(view))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"a damaged {self._path.suffix} file: {error}",
                where=f"{self._path}, after {self._count:,} unpacked bytes",
            ) from error
        view[: len(data)] = data
        self._count += len(data)
        if self._count > max(_BOMB_FROM, _BOMB_RATIO * self._size):
            raise DataError(
                f"{self._size} bytes that unpack to more than {_BOMB_RATIO} times as many",
                where=str(self._path),
                fix="unpack it yourself if it is what it seems, and name the unpacked file",
            )
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
