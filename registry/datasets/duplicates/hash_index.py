"""The hash index of rows: ten million hashes with their places take half a gigabyte.

A row hash is SHA-256, four numbers of 64 bits. The index is log-structured (Bentley and Saxe's
logarithmic method, as in LSM trees): sorted runs of (first number, place), each at least twice as
long as the next. Adding makes a run; while the last run is less than twice as long as it, the two
become one. So n hashes lie in at most log2(n) + 1 runs, none is sorted anew more often than that,
and finding m of them is m binary searches a run.

Hashes that begin with 7 and 3, then with 5, then with 9, get the places 0 to 3:

    add 7, 3 -> runs (3, 7)             places (1, 0)
    add 5    -> runs (3, 7) and (5)     places (1, 0) and (2)
    add 9    -> run (3, 5, 7, 9)        places (1, 2, 0, 3): 9 joins 5, and the two join (3, 7)

Only the first number is sorted by. A find goes over all entries that begin alike and compares all
four numbers, so that hashes with one beginning stay two hashes. Memory a row: 32 bytes of hash, 8
of key and 8 of place; the array of hashes doubles when it is full.
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
