"""Plain text, packed or not: a document a line."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from registry.datasets.readers.reading import AS_FOUND, Reading, open_utf8
from registry.datasets.readers.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_txt(path: Path, reading: Reading = AS_FOUND) -> Iterator[Record]:
    """Yield a record with the column `text` for each line that isn't blank."""
    with open_utf8(path, reading) as file:
        for line, raw in enumerate(file, 1):
            data = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
            text = data.decode(errors="surrogateescape").rstrip("\r\n")
            if text.strip():
                yield Record(line, {"text": text})
