"""How a text file is written: its encoding, found by its first bytes or said by the spec."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.datasets.readers.packed import ending, open_bytes
from registry.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import WriteableBuffer

HEAD = 1 << 20
"""Characters of a file's beginning by which it is found out how the file is written."""

INVALID_UTF8 = "invalid UTF-8"
"""Why a record can't be read that has bytes that are no text."""
NO_UNICODE = "not valid Unicode (invalid UTF-8 or half of a surrogate pair)"
"""Why it becomes no row, if it can be read."""
_HOLDS_BYTES = re.compile("column '([^']*)' holds (?:bytes|raw bytes)")
_FIELDS = re.compile(r"\d+ fields where the header has")

_MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
_LOOKED_AT = 4096  # bytes
_CHUNK = 1 << 16
_SHOWN = 12  # bytes around the one that is wrong
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_CONTROL = re.compile(rb"[\0-\x08]")
_BINARY = (  # each with the endings that it is right for
    (b"PK\x03\x04", (), "a zip file, as Excel's .xlsx is", "export the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", (), "an old Excel file", "export the sheet as CSV (UTF-8)"),
    (b"PAR1", (".parquet",), "a Parquet file", "name it .parquet"),
    (b"ARROW1", (".arrow", ".feather"), "an Arrow file", "name it .arrow"),
    (b"\x1f\x8b", (), "a gzip file", "add .gz to its name"),
    (b"\x28\xb5\x2f\xfd", (), "a Zstandard file", "add .zst to its name"),
    (b"BZh", (), "a bzip2 file", "unpack it, or pack it with gzip"),
    (b"SQLite format 3\0", (), "an SQLite database", "export its table as CSV"),
)
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Reading:
    """What the spec says of how files are written; None is found out from each file itself."""

    encoding: str | None = None
    separator: str | None = None


AS_FOUND = Reading()


def refuse_other_kind(path: Path) -> None:
    """Refuse a file whose first bytes are those of another kind than its ending says.

    Raises:
        UserError: they are.
    """
    with open_bytes(path) as file:
        head = file.peek(_LOOKED_AT)[:_LOOKED_AT]
    own = ending(path)
    if head.startswith(_LFS):
        raise DataError("it is a Git LFS pointer, not the file", str(path), fix="run git lfs pull")
    if own != ".txt" and head.lstrip().lower().startswith(_PAGES):
        raise DataError("it is a web page", str(path), fix="download the file itself")
    for magic, endings, kind, fix in _BINARY:
        if head.startswith(magic) and own not in endings and _CONTROL.search(head):
            raise DataError(f"it is {kind}", where=str(path), fix=fix)


def encoding_of(path: Path, reading: Reading = AS_FOUND) -> str:
    """Return the encoding of a file: the spec's, that of its byte-order mark, UTF-16 or UTF-8."""
    if reading.encoding is not None:
        return codecs.lookup(reading.encoding).name
    with open_bytes(path) as file:
        head = file.peek(_LOOKED_AT)[:_LOOKED_AT]
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    return _without_mark(head)


def _without_mark(head: bytes) -> str:
    """Return UTF-16 where a file begins with two ASCII characters of it, as any table or JSON."""
    at_nul = [byte == 0 for byte in head[:4]]
    if at_nul == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if at_nul == [True, False, True, False] else "utf-8"


def open_utf8(path: Path, reading: Reading = AS_FOUND) -> io.BufferedReader:
    """Open a text file as UTF-8, whatever it is written in.

    What is no text in its encoding becomes a byte that is no UTF-8, so that the row that it is in
    is rejected, and that row alone.
    """
    encoding = encoding_of(path, reading)
    file = open_bytes(path)
    if encoding in ("utf-8", "utf-8-sig", "ascii"):
        return file
    return io.BufferedReader(_Recoded(file, encoding), _CHUNK)


def open_text(path: Path, reading: Reading = AS_FOUND) -> io.TextIOWrapper:
    """Open a text file without its byte-order mark; invalid bytes become lone surrogates.

    Whoever makes a row of them finds that it can't be encoded, and rejects that row alone.
    """
    file = open_utf8(path, reading)
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def remedy(reason: str) -> str | None:
    """Return which key of the spec may help against a reason for which a record can't be used."""
    if reason.startswith((INVALID_UTF8, NO_UNICODE)):
        return (
            "if that reads right, set the dataset's encoding: windows-1252, else the encoding that "
            "the file was saved in"
        )
    if column := _HOLDS_BYTES.match(reason):
        return (
            "name the bytes' encoding under encoding:, or leave the column out with sql: and "
            f"* EXCLUDE ({column[1]}) in the query"
        )
    if _FIELDS.match(reason):
        return "quote a field that has the separator in it, or name another one under separator:"
    return None


def looks_like(text: str) -> str:
    """Say which bytes of a text are no UTF-8 and what they may be; empty where all are."""
    raw = text.encode("utf-8", "surrogateescape" if _has_bytes(text) else "replace")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return in_other_encodings(raw, error.start)
    return ""


def in_other_encodings(raw: bytes, at: int) -> str:
    """Say what the bytes around a place would be in other encodings."""
    runs = [len(run) for run in _HIGH_RUN.findall(raw)]
    if b"\0" in raw:
        return f"byte {raw[at]:#04x}; perhaps utf-16"
    if sum(runs) > 2 * len(runs):  # in Western texts they stand alone
        told = "perhaps windows-1251, gb18030, shift_jis or another encoding that isn't Western"
    else:
        # What is cut in two is left out.
        some = raw[max(0, at - _SHOWN) : at + _SHOWN].decode("cp1252", "replace").strip()
        told = f"in windows-1252 it reads {some!r}"
    return f"byte {raw[at]:#04x}; {told}"


def _has_bytes(text: str) -> bool:
    """Whether each lone surrogate in it stands for a byte."""
    return not any("\ud800" <= one <= "\udc7f" or "\udd00" <= one <= "\udfff" for one in text)


class _Recoded(io.RawIOBase):
    """A text in any encoding, as UTF-8."""

    def __init__(self, file: io.BufferedReader, encoding: str) -> None:
        super().__init__()
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)(_MARKED)
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        while not self._left and not self._ended:
            data = self._file.read(_CHUNK)
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            self._left = text.encode("utf-8", "surrogateescape")
        given = self._left[: len(view)]
        view[: len(given)] = given
        self._left = self._left[len(given) :]
        return len(given)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


_MARKED = "gapmend.marked"


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Stand a byte that no UTF-8 has for what can't be decoded."""
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    raise error


codecs.register_error(_MARKED, _mark)
