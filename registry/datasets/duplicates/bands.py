"""The LSH index of MinHash sketches: which texts may be near-duplicates of one another.

MinHash (Broder 1997) keeps 128 minima of a text's shingles: two texts agree in each with a
probability that is their Jaccard similarity s. Banding (locality-sensitive hashing, Indyk and
Motwani 1998) hashes each 4 minima to a key of 48 bits: a text has 32 keys, and two texts with one
key in the same band are proposed as a pair, with probability 1 - (1 - s^4)^32: above 1 - 1e-7 at
s = .8, 0.87 at .5, 0.05 at .2. What a pair says decides (near_duplicates.py), so a pair too many
costs time and changes nothing.

Texts 0 to 2 with the keys a, b, a in one band and c, c, d in another: the runs are [0, 2] and
[0, 1]. A band's runs are found by sorting its keys, O(n log n) a band.

The keys lie on the disk, band by band: all bands' upper 32 bits, uint32 [bands, texts], then all
lower 16, uint16 [bands, texts]. Of ten million texts they are 1.9 GB, of which one band at a time
is in memory. An append marks how the new texts' keys begin (22 bits, a table of 4 M) and sorts of
the older ones only those that begin alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from registry.datasets.formats.arrays import BoolArray, Int64Array, KeyArray


_PERMUTATIONS = 128
BANDS = (
    32  # 4 rows a band: a pair at .8 is proposed with probability 1 - (1 - .8**4)**32 > 1 - 1e-7
)
_SEED = 42
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)  # odd: no two bands of one half are alike
_BITS = 48
_LOW = 16  # of them lie in a file's second half, where only keys that begin alike are looked at
_MARKED = 22  # leading bits by which keys are told apart first


def band_keys(sets: Sequence[list[str]]) -> KeyArray:
    """Return what sets of shingles are filed under in each band: uint64 [bands, sets].

    Two bands that differ may share a key; that proposes a pair too many, and no pair too few.
    """
    from rensa import RMinHash

    if not sets:
        return np.empty((BANDS, 0), np.uint64)
    matrix = RMinHash.digest_matrix_from_token_sets(sets, _PERMUTATIONS, _SEED)
    sketches = np.array(matrix.to_rows(), np.uint32).reshape(len(sets), BANDS, -1)
    halves = sketches.view(np.uint64)
    first, second = (halves[:, :, half] * np.uint64(_MIX[half]) for half in (0, 1))
    mixed = first ^ (second >> np.uint64(29)) ^ second
    return np.ascontiguousarray((mixed >> np.uint64(64 - _BITS)).T)


@dataclass(frozen=True)
class Bands:
    """The keys of `texts` texts in a file, which `write` fills."""

    path: Path
    texts: int

    def write(self, first: int, keys: KeyArray) -> None:
        """Write the keys of neighbouring texts; `first` is the position of the first of them."""
        self.path.touch()
        with self.path.open("r+b", buffering=0) as file:
            for band, some in enumerate(keys):
                place = band * self.texts + first
                file.seek(place * 4)
                file.write((some >> np.uint64(_LOW)).astype(np.uint32).data)
                file.seek(self._low_from + place * 2)
                file.write(some.astype(np.uint16).data)

    def band(self, number: int) -> KeyArray:
        """Return the keys of one band."""
        return (self._high(number).astype(np.uint64) << np.uint64(_LOW)) | self._low(number)

    def read(self) -> KeyArray:
        """Return the keys of all bands: uint64 [bands, texts]."""
        return np.stack([self.band(number) for number in range(BANDS)])

    def near(self, number: int, marked: BoolArray) -> tuple[Int64Array, KeyArray]:
        """Return the texts whose keys in a band begin as marked ones do, and their keys."""
        high = self._high(number)
        found = np.flatnonzero(marked[high >> np.uint32(32 - _MARKED)])
        return found, (high[found].astype(np.uint64) << np.uint64(_LOW)) | self._low(number)[found]

    @property
    def _low_from(self) -> int:
        return BANDS * self.texts * 4

    def _high(self, number: int) -> NDArray[np.uint32]:
        return np.fromfile(self.path, np.uint32, self.texts, offset=number * self.texts * 4)

    def _low(self, number: int) -> NDArray[np.uint16]:
        offset = self._low_from + number * self.texts * 2
        return np.fromfile(self.path, np.uint16, self.texts, offset=offset)

    def runs(self) -> Iterator[list[int]]:
        """Yield the positions that share a key, band by band."""
        for number in range(BANDS if self.texts else 0):
            yield from runs_of(self.band(number), np.arange(self.texts))


def runs_with(old: Sequence[Bands], new: KeyArray) -> Iterator[list[int]]:
    """Yield the positions that share a key, where a new text is among them.

    Args:
        old: the bands of the texts that were there, one behind the other.
        new: of those that come behind them.
    """
    count = sum(part.texts for part in old)
    behind = np.arange(count, count + new.shape[1])
    for number, keys in enumerate(new if len(behind) else ()):
        marked = np.zeros(1 << _MARKED, np.bool_)
        marked[keys >> np.uint64(_BITS - _MARKED)] = True
        positions, all_keys, begin = [], [], 0
        for part in old:
            found, theirs = part.near(number, marked)
            positions.append(found + begin)
            all_keys.append(theirs)
            begin += part.texts
        runs = runs_of(np.concatenate((*all_keys, keys)), np.concatenate((*positions, behind)))
        yield from (run for run in runs if run[-1] >= count)


def runs_of(keys: KeyArray, positions: Int64Array) -> Iterator[list[int]]:
    """Yield the positions that have one key, ascending, where there are several."""
    order = np.argsort(keys, kind="stable")
    same = np.diff(keys[order]) == 0
    edges = np.diff(np.concatenate(([0], same.view(np.int8), [0])))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield positions[order[start : end + 1]].tolist()
