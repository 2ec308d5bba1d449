"""Near-duplicates: which texts say almost the same thing.

A text becomes the set of its shingles: runs of three consecutive tokens (words, runs of digits or
punctuation marks, lower-cased, in one Unicode form), and of as many characters as are three words
where words aren't spaced (tokens.py); a shorter text is one shingle. MinHash bands (sketches by
rensa) propose pairs and the exact Jaccard similarity decides, so no verdict rests on an estimate.

Bands are looked through by sorting, one at a time, and lie on the disk (bands.py).
rensa's own index takes 2,700 bytes a text.
"""

from __future__ import annotations

import tempfile
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from registry.datasets.duplicates.bands import Bands, band_keys
from registry.datasets.duplicates.tokens import runs_of_words, tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from registry.datasets.formats.arrays import Int32Array, KeyArray

THRESHOLD = 0.8
"""Jaccard similarity at or above which two texts are near-duplicates."""

_SHINGLE = 3
_AT_ONCE = 10_000  # texts whose shingles are in memory while they are sketched
_KEPT = 1 << 14  # texts whose shingles are kept while pairs are compared


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two near-duplicates: `left` and `right` are positions in the texts given."""

    left: int
    right: int
    similarity: float


def shingles(text: str) -> frozenset[str]:
    """Return the set of three-word shingles of `text` (one shingle when it is shorter)."""
    tokens = tokens_of(text)
    return frozenset(runs_of_words(tokens, _SHINGLE)) or frozenset((" ".join(tokens),))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the Jaccard similarity of two shingle sets (1.0 for two empty sets)."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def near_pairs(queries: Sequence[str], corpus: Sequence[str]) -> list[NearPair]:
    """Return each (query, corpus) pair that is a near-duplicate, `left` in `queries`."""
    corpus_set = _shingles_of(corpus)
    found: list[NearPair] = []
    for left, rights in _proposed(sketch(queries), sketch(corpus)):
        own = shingles(queries[left])
        for right in rights:
            similarity = jaccard(own, corpus_set(right))
            if similarity >= THRESHOLD:
                found.append(NearPair(left, right, similarity))
    return found


def clusters(
    texts: Sequence[str],
    path: Path | None = None,
    looked_at: Callable[[int, int], None] = lambda _done, _total: None,
) -> Int32Array:
    """Return a cluster number for each text: the position of the cluster's first text.

    Texts joined by a chain of near-duplicates are one cluster. Their bands are left in `path`, and
    `looked_at` is told how many texts of all were looked at.
    """
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            return clusters(texts, Path(folder) / "bands", looked_at)
    bands = Bands(path, len(texts))
    for done in range(0, len(texts), _AT_ONCE):
        looked_at(done, len(texts))
        bands.write(done, sketch(texts[done : done + _AT_ONCE]))
    looked_at(len(texts), len(texts))
    return join(len(texts), bands.runs(), texts)


def sketch(texts: Sequence[str]) -> KeyArray:
    """Return what each text is filed under in each band: uint64 [bands, texts]."""
    blocks = [
        band_keys([list(shingles(text)) for text in texts[begin : begin + _AT_ONCE]])
        for begin in range(0, len(texts), _AT_ONCE)
    ]
    return np.concatenate([band_keys(()), *blocks], axis=1)


class ByPlace(Protocol):
    """Texts, each by its position; not all need be there."""

    def __getitem__(self, place: int, /) -> str:
        """Return one text."""
        ...


def join(
    count: int, runs: Iterable[Sequence[int]], texts: ByPlace, groups: Int32Array | None = None
) -> Int32Array:
    """Join texts that are near: of those that a band proposes, each with one of every cluster.

    A pair that is in one cluster already is not compared (union-find).

    Args:
        count: of all texts.
        runs: positions that share a band, ascending.
        texts: those that the runs name.
        groups: clusters of the first texts, between which nothing more is near.
    """
    fixed = 0 if groups is None else len(groups)
    parent = array("i")
    if groups is not None:
        parent.frombytes(groups.tobytes())
    parent.frombytes(np.arange(fixed, count, dtype=np.int32).tobytes())
    sets = _shingles_of(texts)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for run in runs:
        members: dict[int, list[int]] = {}
        for text in run:
            own = root(text)
            others = [one for one in members if one != own] if text >= fixed else []
            for other in others:
                if any(jaccard(sets(text), sets(one)) >= THRESHOLD for one in members[other]):
                    joined = members.pop(other) + members.pop(own, [])
                    parent[max(own, other)] = own = min(own, other)
                    members[own] = joined
            members.setdefault(own, []).append(text)
    return _roots(np.frombuffer(parent, np.int32) if count else np.empty(0, np.int32))


def _roots(parents: Int32Array) -> Int32Array:
    while True:
        above = parents[parents]
        if np.array_equal(above, parents):
            return above
        parents = above


def _shingles_of(texts: ByPlace | Sequence[str]) -> Callable[[int], frozenset[str]]:
    return lru_cache(maxsize=_KEPT)(lambda position: shingles(texts[position]))


def _proposed(queries: KeyArray, corpus: KeyArray) -> Iterator[tuple[int, list[int]]]:
    """Yield each query with the positions in the corpus that share a band with it."""
    found: dict[int, set[int]] = {}
    for asked, filed in zip(queries, corpus, strict=True):
        order = np.argsort(filed, kind="stable")
        ordered = filed[order]
        left, right = np.searchsorted(ordered, asked), np.searchsorted(ordered, asked, "right")
        for query in np.flatnonzero(right > left).tolist():
            found.setdefault(query, set()).update(order[left[query] : right[query]].tolist())
    for query in sorted(found):
        yield query, sorted(found[query])
