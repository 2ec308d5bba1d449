"""Near-duplicates: which texts say almost the same thing.

A text becomes the set of its shingles: three consecutive tokens (words, digits runs or
punctuation marks, lower-cased); a shorter text is one shingle. MinHash LSH (rensa) proposes
pairs and the exact Jaccard similarity decides, so no verdict rests on a hash estimate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

THRESHOLD = 0.8
"""Jaccard similarity at or above which two texts are near-duplicates."""

_SHINGLE = 3
_PERMUTATIONS = 128
_BANDS = (
    32  # 4 rows a band: a pair at .8 is proposed with probability 1 - (1 - .8**4)**32 > 1 - 1e-7
)
_SEED = 42
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
    return frozenset(" ".join(tokens[i : i + _SHINGLE]) for i in range(len(tokens) - _SHINGLE + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the Jaccard similarity of two shingle sets (1.0 for two empty sets)."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def near_pairs(queries: Sequence[str], corpus: Sequence[str]) -> list[NearPair]:
    """Return each (query, corpus) pair that is a near-duplicate, `left` in `queries`."""
    corpus_sets = [shingles(text) for text in corpus]
    query_sets = [shingles(text) for text in queries]
    found: list[NearPair] = []
    for left, candidates in enumerate(_candidates(query_sets, corpus_sets)):
        for right in sorted(candidates):
            similarity = jaccard(query_sets[left], corpus_sets[right])
            if similarity >= THRESHOLD:
                found.append(NearPair(left, right, similarity))
    return found


def clusters(texts: Sequence[str]) -> list[int]:
    """Return a cluster number for each text: the position of the cluster's first text.

    Texts joined by a chain of near-duplicates are one cluster (union-find).
    """
    parent = list(range(len(texts)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for pair in near_pairs(texts, texts):
        a, b = root(pair.left), root(pair.right)
        parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(texts))]


def _candidates(
    queries: Sequence[frozenset[str]], corpus: Sequence[frozenset[str]]
) -> Iterator[Iterable[int]]:
    """Yield for each query the positions in `corpus` that LSH proposes."""
    from rensa import RMinHash, RMinHashLSH

    def sketches(sets: Sequence[frozenset[str]]) -> list[RMinHash]:
        made = RMinHash.from_token_sets([sorted(s) for s in sets], _PERMUTATIONS, _SEED)
        return list(made)

    index = RMinHashLSH(THRESHOLD, _PERMUTATIONS, _BANDS)
    for position, sketch in enumerate(sketches(corpus)):
        index.insert(position, sketch)
    for sketch in sketches(queries):
        yield index.query(sketch)
