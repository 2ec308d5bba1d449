"""A file of lines in blocks, each of them whole lines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from registry.compressed import open_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_BLOCK = 1 << 22  # bytes read at a time: what is made of them stays near the caches
_LINE_END = 10
_PRINTED = 32  # bytes below it are control characters


@dataclass(frozen=True)
class Block:
    """Some lines of a file.

    Attributes:
        first: the number of the first line, from 1.
        data: the lines, the last of them ended too.
    """

    first: int
    data: bytes

    @cached_property
    def _controls(self) -> NDArray[np.int64]:
        return np.flatnonzero(np.frombuffer(self.data, np.uint8) < _PRINTED)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where each line ends, which is its line break."""
        letters = np.frombuffer(self.data, np.uint8)
        return self._controls[letters[self._controls] == _LINE_END]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each line begins."""
        return np.concatenate(([0], self.ends[:-1] + 1))

    @cached_property
    def printed(self) -> NDArray[np.bool_]:
        """Whether each line is without control characters."""
        letters = np.frombuffer(self.data, np.uint8)
        others = self._controls[letters[self._controls] != _LINE_END]
        found = np.ones(len(self.ends), np.bool_)
        found[np.searchsorted(self.ends, others)] = False
        return found

    def line(self, number: int) -> bytes:
        """Return a line of the block, counted from 0, without its break."""
        return self.data[self.starts[number] : self.ends[number]]


def read_blocks(path: Path, size: int = _BLOCK) -> Iterator[Block]:
    """Yield a file's lines, about `size` bytes of them at a time, or one that is longer."""
    first = 1
    with open_bytes(path) as file:
        while data := file.read(size):
            if not data.endswith(b"\n"):
                data += file.readline()
            if not data.endswith(b"\n"):
                data += b"\n"
            block = Block(first, data)
            yield block
            first += len(block.ends)
