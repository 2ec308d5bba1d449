"""A copy of a file, of which someone wants to know how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BLOCK = 4 << 20


def copy_file(source: Path, target: Path, advance: Callable[[int], None]) -> None:
    """Copy a file's bytes; `advance` is told how many since the last call.

    Raises:
        OSError: one can't be read or the other not written.
    """
    with source.open("rb") as read, target.open("wb") as written:
        while block := read.read(_BLOCK):
            written.write(block)
            advance(len(block))
