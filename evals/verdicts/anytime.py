"""A score that ends early where its verdict is clear: a bet against what would refute it. Pure.

Whoever asks items one after the other until an ordinary interval lies below the goal errs far more
often than it says. A bet may be looked at as often as one likes: it starts with 1, stakes on each
cluster that its items score less than the goal, and is fair at best if the mean is the goal or
more. Then it reaches 1 / alpha with probability alpha at most, however many looks there are (Ville
1939). These are the bets of Waudby-Smith and Ramdas (2024, JRSS B 86, arXiv:2010.09686), on a grid
of fixed stakes whose fortunes are averaged: what they come to does not depend on the order.

A cluster of near-duplicates is one throw. The mean is that of items, and clusters differ in size,
so the throw is not the cluster's mean: it is (its total - goal x its size), which is 0 on average
exactly where the mean over items is the goal, divided by the size of the largest cluster, so that
no stake is lost more than whole. Sizes are known before any answer; a large cluster makes every
bet smaller, so that less is saved and nothing is wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evals.verdicts.looks import Level
from evals.verdicts.stats import Interval, falling_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evals.verdicts.bootstrap import Floats
    from evals.verdicts.stats import Scores

RULE = {"rule": "bets on a grid", "version": 1}
"""What decides an end, for the key of whatever may end early. Raised with every figure below."""

TAIL = 0.005
"""Each side's error in ending early, of the 2.5% that it has."""

FINAL = Level(interval=0.04, bound=0.04)
"""What is left for a score that did not end early: 2% a side."""

STAKES = (0.04, 0.08, 0.16, 0.3, 0.5, 0.75, 0.95)
"""Shares of the fortune that a cluster may lose, at worst."""

_FIRST, _GROWTH = 32, 1.25  # items before the first look, and how many times more before the next
_LEAST = 1e-9  # below a goal of 1, where a stake could not be lost


@dataclass(frozen=True, slots=True)
class EarlyRule:
    """When the score of a capability, or of a prompt, may end: `settled`.

    Attributes:
        goal: below it, there is a gap.
        floor: at or above it, the goal counts as met.
        largest: the size of the largest cluster of all items, asked or not.
        gap_tail: the error in calling a gap; smaller where several are judged (Bonferroni).
    """

    goal: float
    floor: float
    largest: int
    gap_tail: float = TAIL

    def p_gap(self, scores: Scores) -> float:
        """Return the p-value of "the mean is the goal or more", whenever it is asked."""
        return math.exp(min(0.0, -_fortune(*_clusters(scores), self.goal, self.largest)))

    def p_met(self, scores: Scores) -> float:
        """Return the p-value of "the mean is at most the floor", whenever it is asked."""
        sums, sizes = _clusters(scores)
        return math.exp(min(0.0, -_fortune(sizes - sums, sizes, 1 - self.floor, self.largest)))

    def settled(self, scores: Scores) -> bool:
        """Return whether the verdict is clear."""
        return self.p_gap(scores) <= self.gap_tail or self.p_met(scores) <= TAIL

    def interval(self, scores: Scores) -> Interval:
        """Return the mean with bounds of which each errs by `TAIL`, whenever they are asked."""
        sums, sizes = _clusters(scores)
        mean = scores.mean
        high = _upper(sums, sizes, mean, self.largest)
        low = 1 - _upper(sizes - sums, sizes, 1 - mean, self.largest)
        return Interval(mean, min(low, mean), max(high, mean), scores.n)


@dataclass(frozen=True, slots=True)
class Ended:
    """That a score ended early: by which rule, and how many items there were to ask."""

    rule: EarlyRule
    of: int


def rule_for(goal: float, margin: float, clusters: Sequence[int], *, family: int = 1) -> EarlyRule:
    """Return the rule for items of these clusters, where `family` capabilities are judged."""
    largest = max(Counter(clusters).values(), default=1)
    return EarlyRule(goal, goal - margin, largest, TAIL / family)


def batches(clusters: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the positions of the items between two looks: whole clusters, in an order by hash."""
    members: dict[int, list[int]] = {}
    for position, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(position)
    batch: list[int] = []
    asked, due = 0, _FIRST
    for cluster in sorted(members, key=_by_hash):
        batch += members[cluster]
        asked += len(members[cluster])
        if asked >= due:
            yield tuple(sorted(batch))
            batch, due = [], max(asked + _FIRST, math.ceil(asked * _GROWTH))
    if batch:
        yield tuple(sorted(batch))


def log_bets(sums: Floats, sizes: Floats, goal: float, largest: int) -> Floats:
    """Return the logarithm of what each stake against a mean of `goal` or more has come to.

    Those of several batches are added up; `log_mean` makes one fortune of them.

    Args:
        sums: the total score of each cluster, one a row; one column an eval.
        sizes: the number of items of each cluster.
        goal: the mean that is bet against.
        largest: the size of the largest cluster.

    Returns:
        One row a stake, one column an eval.
    """
    import numpy as np

    gains = (goal * sizes[:, None] - sums) / (largest * max(1 - goal, _LEAST))
    return np.stack([np.log1p(stake * gains).sum(axis=0) for stake in STAKES])


def log_mean(logs: Floats) -> Floats:
    """Return the logarithm of the mean fortune of the stakes, one an eval."""
    import numpy as np

    return np.asarray(np.logaddexp.reduce(logs, axis=0) - math.log(len(STAKES)))


def _fortune(sums: Floats, sizes: Floats, goal: float, largest: int) -> float:
    return float(log_mean(log_bets(sums[:, None], sizes, goal, largest))[0])


def _upper(sums: Floats, sizes: Floats, mean: float, largest: int) -> float:
    """Return the least goal that is refuted; each stake comes to more, the higher the goal is."""
    wanted = -math.log(TAIL)
    return falling_root(lambda goal: wanted - _fortune(sums, sizes, goal, largest), mean, 1.0)


def _clusters(scores: Scores) -> tuple[Floats, Floats]:
    import numpy as np

    _, owner = np.unique(np.asarray(scores.clusters), return_inverse=True)
    sizes = np.bincount(owner).astype(np.float64)
    return np.bincount(owner, weights=np.asarray(scores.values)).astype(np.float64), sizes


def _by_hash(cluster: int) -> bytes:
    return hashlib.sha256(f"early:{cluster}".encode()).digest()
