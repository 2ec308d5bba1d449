"""Row hashes in little memory: ten million of them with their places take half a gigabyte.

A hash is four numbers of 64 bits, of which the first decides the order. An index keeps sorted runs
of those, each at least twice as long as the next, so that adding is cheap and finding looks into
few; a find is settled by the whole hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from registry.datasets.formats.arrays import BoolArray, HashArray, Int64Array


_DIGITS = 64
_VALUES = np.full(256, 255, np.uint8)
_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


def hashes_of(texts: pa.Array) -> HashArray:
    """Return hashes written as 64 hex digits as numbers, uint64 [n, 4], in the same order.

    Raises:
        ValueError: one is no such hash.
    """
    import pyarrow as pa

    texts = texts.cast(pa.large_string()) if texts.type != pa.large_string() else texts
    starts = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
    if texts.null_count or not (np.diff(starts) == _DIGITS).all():
        message = "a row hash that isn't 64 hex digits"
        raise ValueError(message)
    if not len(texts):
        return np.empty((0, 4), np.uint64)
    letters = np.frombuffer(texts.buffers()[2], np.uint8)[starts[0] : starts[-1]]
    digits = _VALUES[letters].reshape(len(texts), _DIGITS)
    if digits.max() > 15:  # noqa: PLR2004 - a hex digit
        message = "a row hash that isn't 64 hex digits"
        raise ValueError(message)
    whole = (digits[:, 0::2] << 4) | digits[:, 1::2]
    return whole.view(">u8").astype(np.uint64)


def as_texts(hashes: HashArray) -> pa.Array:
    """Return hashes as 64 hex digits each."""
    return digests_as_texts(np.ascontiguousarray(hashes).astype(">u8").tobytes())


def digests_as_texts(digests: bytes) -> pa.Array:
    """Return digests of 32 bytes, one behind the other, as 64 hex digits each."""
    import pyarrow as pa

    data = digests.hex().encode()
    starts = np.arange(0, len(data) + 1, _DIGITS, dtype=np.int64)
    return pa.LargeStringArray.from_buffers(
        len(starts) - 1, pa.py_buffer(starts.tobytes()), pa.py_buffer(data)
    ).cast(pa.string())


def _begin_apart(hashes: HashArray) -> bool:
    """Whether no two hashes have the same first number, so that all are different."""
    ordered = np.sort(hashes[:, 0])
    return not bool((ordered[1:] == ordered[:-1]).any())


class HashIndex:
    """Different hashes, each with its place: 0 for the first that was added, and so on."""

    def __init__(self) -> None:
        """Begin empty."""
        self._all: HashArray = np.empty((0, 4), np.uint64)
        self._length = 0
        self._runs: list[tuple[NDArray[np.uint64], Int64Array]] = []

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    @property
    def hashes(self) -> HashArray:
        """All of them, in the order of their places: uint64 [n, 4]."""
        return self._all[: self._length]

    def find(self, hashes: HashArray) -> Int64Array:
        """Return the place of each hash, -1 for one that isn't there."""
        places = np.full(len(hashes), -1, np.int64)
        if not self._runs:
            return places
        order = np.argsort(hashes[:, 0], kind="stable")  # near ones are looked for together
        for keys, where in self._runs:
            left = order[places[order] < 0]
            at = np.searchsorted(keys, hashes[left, 0])
            while len(left):
                near = at < len(keys)
                left, at = left[near], at[near]
                near = keys[at] == hashes[left, 0]
                left, at = left[near], at[near]
                same = (self._all[where[at]] == hashes[left]).all(axis=1)
                places[left[same]] = where[at[same]]
                left, at = left[~same], at[~same] + 1
        return places

    def add(self, hashes: HashArray) -> Int64Array:
        """Add hashes that are neither there nor twice among these; returns their places."""
        first = self._length
        self._grow(len(hashes))
        self._all[first : self._length] = hashes
        added = np.arange(first, self._length)
        run = (hashes[:, 0], added)
        while self._runs and len(self._runs[-1][1]) < 2 * len(run[1]):
            keys, where = self._runs.pop()
            run = (np.concatenate((keys, run[0])), np.concatenate((where, run[1])))
        order = np.argsort(run[0], kind="stable")
        self._runs.append((run[0][order], run[1][order]))
        return added

    def place(self, hashes: HashArray) -> tuple[Int64Array, BoolArray]:
        """Return the place of each hash, and which are first seen here; those are added."""
        places = self.find(hashes)
        new = np.flatnonzero(places < 0)
        if not len(new):
            return places, np.zeros(len(hashes), np.bool_)
        if _begin_apart(hashes[new]):
            places[new] = self.add(hashes[new])
            first = np.zeros(len(hashes), np.bool_)
            first[new] = True
            return places, first
        _, firsts, numbers = np.unique(
            hashes[new].view([("", np.uint64)] * 4).ravel(), return_index=True, return_inverse=True
        )
        order = np.argsort(firsts)  # places in the order in which they come
        added = self.add(hashes[new[firsts[order]]])
        by_number = np.empty(len(order), np.int64)
        by_number[order] = added
        places[new] = by_number[numbers]
        first = np.zeros(len(hashes), np.bool_)
        first[new[firsts]] = True
        return places, first

    def _grow(self, count: int) -> None:
        self._length += count
        if self._length > len(self._all):
            larger = np.empty((max(self._length, 2 * len(self._all), 1024), 4), np.uint64)
            larger[: self._length - count] = self._all[: self._length - count]
            self._all = larger
