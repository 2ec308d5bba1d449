"""One record of a data file, as every reader gives it."""

from __future__ import annotations

from typing import Any

import msgspec


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of a file: its columns, or why it can't be read.

    `line` is the physical line where it begins (of a compressed file, the line of its text), for
    JSON arrays the element's number and for Parquet and Arrow the row's number, all from 1.
    """

    line: int
    value: dict[str, Any] | None
    error: str | None = None
