"""Bands of MinHash sketches: which texts may be near-duplicates of one another.

A text has 32 keys of 32 bits, one for each band. Two texts of one key in one band are proposed as
a pair; what they say decides (registry/duplicates.py). The keys lie on the disk, band by band:
of ten million texts they are 1.3 GB, of which one band at a time is in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Keys = NDArray[np.uint32]

_PERMUTATIONS = 128
BANDS = (
    32  # 4 rows a band: a pair at .8 is proposed with probability 1 - (1 - .8**4)**32 > 1 - 1e-7
)
_SEED = 42
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)  # odd: no two bands of one half are alike
_BYTES = 4
_MARKED = 22  # leading bits by which keys are first told apart


def sketched(sets: Sequence[list[str]]) -> Keys:
    """Return what sets of shingles are filed under in each band: uint32 [bands, sets].

    Two bands that differ may share a key; that proposes a pair too many, and no pair too few.
    """
    from rensa import RMinHash

    if not sets:
        return np.empty((BANDS, 0), np.uint32)
    matrix = RMinHash.digest_matrix_from_token_sets(sets, _PERMUTATIONS, _SEED)
    sketches = np.array(matrix.to_rows(), np.uint32).reshape(len(sets), BANDS, -1)
    halves = sketches.view(np.uint64)
    first, second = (halves[:, :, half] * np.uint64(_MIX[half]) for half in (0, 1))
    mixed = first ^ (second >> np.uint64(29)) ^ second
    return np.ascontiguousarray((mixed >> np.uint64(32)).astype(np.uint32).T)


@dataclass(frozen=True)
class Bands:
    """The keys of `texts` texts in a file, which `write` fills."""

    path: Path
    texts: int

    def write(self, first: int, keys: Keys) -> None:
        """Write the keys of neighbouring texts; `first` is the position of the first of them."""
        self.path.touch()
        with self.path.open("r+b", buffering=0) as file:
            for band, some in enumerate(keys):
                file.seek((band * self.texts + first) * _BYTES)
                file.write(np.ascontiguousarray(some).data)

    def band(self, number: int) -> Keys:
        """Return the keys of one band."""
        return np.fromfile(self.path, np.uint32, self.texts, offset=number * self.texts * _BYTES)

    def runs(self) -> Iterator[list[int]]:
        """Yield the positions that share a key, band by band."""
        for number in range(BANDS if self.texts else 0):
            yield from runs_of(self.band(number), np.arange(self.texts))


def runs_of(keys: Keys, positions: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the positions that have one key, ascending, where there are several."""
    order = np.argsort(keys, kind="stable")
    same = np.diff(keys[order]) == 0
    edges = np.diff(np.concatenate(([0], same.view(np.int8), [0])))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield positions[order[start : end + 1]].tolist()
