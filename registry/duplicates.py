"""Near-duplicates: which texts say almost the same thing.

A text becomes the set of its shingles: three consecutive tokens (words, digits runs or
punctuation marks, lower-cased); a shorter text is one shingle. MinHash bands (sketches by rensa)
propose pairs and the exact Jaccard similarity decides, so no verdict rests on a hash estimate.

Bands are looked through by sorting: 256 bytes a text. rensa's own index takes 2,700.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Keys = NDArray[np.uint64]

THRESHOLD = 0.8
"""Jaccard similarity at or above which two texts are near-duplicates."""

_SHINGLE = 3
_PERMUTATIONS = 128
_BANDS = (
    32  # 4 rows a band: a pair at .8 is proposed with probability 1 - (1 - .8**4)**32 > 1 - 1e-7
)
_SEED = 42
_AT_ONCE = 10_000  # texts whose shingles are in memory while they are sketched
_KEPT = 1 << 16  # texts whose shingles are kept while pairs are compared
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)  # odd: no two bands of one half are alike
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two near-duplicates: `left` and `right` are positions in the texts given."""

    left: int
    right: int
    similarity: float


def shingles(text: str) -> frozenset[str]:
    """Return the set of three-token shingles of `text` (one shingle when it is shorter)."""
    tokens = _TOKEN.findall(text.lower())
    if len(tokens) <= _SHINGLE:
        return frozenset((" ".join(tokens),))
    return frozenset(map(" ".join, zip(tokens, tokens[1:], tokens[2:], strict=False)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the Jaccard similarity of two shingle sets (1.0 for two empty sets)."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def near_pairs(queries: Sequence[str], corpus: Sequence[str]) -> list[NearPair]:
    """Return each (query, corpus) pair that is a near-duplicate, `left` in `queries`."""
    corpus_set = _shingles_of(corpus)
    found: list[NearPair] = []
    for left, rights in _proposed(_band_keys(queries), _band_keys(corpus)):
        own = shingles(queries[left])
        for right in rights:
            similarity = jaccard(own, corpus_set(right))
            if similarity >= THRESHOLD:
                found.append(NearPair(left, right, similarity))
    return found


def clusters(texts: Sequence[str]) -> list[int]:
    """Return a cluster number for each text: the position of the cluster's first text.

    Texts joined by a chain of near-duplicates are one cluster (union-find). A pair that is in one
    cluster already is not compared.
    """
    parent = list(range(len(texts)))
    sets = _shingles_of(texts)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(run: list[int]) -> None:
        """Join what is near among texts that a band proposes: each with one of every cluster."""
        groups: dict[int, list[int]] = {}
        for text in run:
            own = root(text)
            for other in [one for one in groups if one != own]:
                if any(jaccard(sets(text), sets(member)) >= THRESHOLD for member in groups[other]):
                    joined = groups.pop(other) + groups.pop(own, [])
                    parent[max(own, other)] = own = min(own, other)
                    groups[own] = joined
            groups.setdefault(own, []).append(text)

    for band in _band_keys(texts).T:
        for run in _runs(band):
            join(run)
    return [root(i) for i in range(len(texts))]


def _shingles_of(texts: Sequence[str]) -> Callable[[int], frozenset[str]]:
    return lru_cache(maxsize=_KEPT)(lambda position: shingles(texts[position]))


def _band_keys(texts: Sequence[str]) -> Keys:
    """Return what each text is filed under in each band: uint64 [texts, bands].

    Two bands that differ may share a key; that proposes a pair too many, and no pair too few.
    """
    import numpy as np
    from rensa import RMinHash

    keys = np.empty((len(texts), _BANDS), np.uint64)
    for done in range(0, len(texts), _AT_ONCE):
        sets = [list(shingles(text)) for text in texts[done : done + _AT_ONCE]]
        matrix = RMinHash.digest_matrix_from_token_sets(sets, _PERMUTATIONS, _SEED)
        sketches = np.array(matrix.to_rows(), np.uint32).reshape(len(sets), _BANDS, -1)
        halves = sketches.view(np.uint64)
        first, second = (halves[:, :, half] * np.uint64(_MIX[half]) for half in (0, 1))
        keys[done : done + len(sets)] = first ^ (second >> np.uint64(29)) ^ second
    return keys


def _runs(band: Keys) -> Iterator[list[int]]:
    """Yield the positions that have one key, where there are several."""
    import numpy as np

    order = np.argsort(band, kind="stable")
    same = np.diff(band[order]) == 0
    edges = np.diff(np.concatenate(([0], same.view(np.int8), [0])))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield order[start : end + 1].tolist()


def _proposed(queries: Keys, corpus: Keys) -> Iterator[tuple[int, list[int]]]:
    """Yield each query with the positions in the corpus that share a band with it."""
    import numpy as np

    found: dict[int, set[int]] = {}
    for asked, filed in zip(queries.T, corpus.T, strict=True):
        order = np.argsort(filed, kind="stable")
        ordered = filed[order]
        left, right = np.searchsorted(ordered, asked), np.searchsorted(ordered, asked, "right")
        for query in np.flatnonzero(right > left).tolist():
            found.setdefault(query, set()).update(order[left[query] : right[query]].tolist())
    for query in sorted(found):
        yield query, sorted(found[query])
