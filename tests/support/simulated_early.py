"""Simulated evals that may end early: which end as what, and how many items they ask."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evals.verdicts import stats
from evals.verdicts.anytime import FINAL, STAKES, TAIL, batches, log_bets, log_mean
from evals.verdicts.bootstrap import resampled_means
from tests.support import simulated as sim

Draw = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
BLOCK = 250  # evals whose clusters come in one order

NOT_ENDED, GAP, MET = 0, 1, 2


@dataclass(frozen=True)
class Shares:
    """Of evals: called a gap, called met, the same early alone; and of items: asked."""

    gap: float
    met: float
    gap_early: float
    met_early: float
    asked: float


def of_kind(kind: sim.Kind) -> Draw:
    """Scores that have nothing to do with the size of their cluster."""
    return lambda sizes, evals, random: sim.scores(kind, sizes, evals, random)


def of_rate(rate: float) -> Draw:
    return lambda sizes, evals, random: (random.random((sizes.sum(), evals)) < rate) * 1.0


def larger_are(right: float, mean: float) -> Draw:
    """Items that share a cluster are right at one rate, all others so that the mean is `mean`."""

    def draw(sizes: np.ndarray, evals: int, random: np.random.Generator) -> np.ndarray:
        share = sizes[sizes > 1].sum() / sizes.sum()
        alone = (mean - share * right) / (1 - share)
        assert 0 <= alone <= 1
        drawn = random.random((len(sizes), evals)) < np.where(sizes > 1, right, alone)[:, None]
        return np.repeat(drawn * 1.0, sizes, axis=0)

    return draw


def ended(
    values: np.ndarray, sizes: np.ndarray, goal: float, floor: float, tail: float = TAIL
) -> tuple[np.ndarray, np.ndarray]:
    """Per eval, one a column: how it ended, and how many items it asked."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    sums, largest = sim.sums_of(values, sizes), int(sizes.max())
    below = np.zeros((len(STAKES), values.shape[1]))
    above = np.zeros_like(below)
    how = np.zeros(values.shape[1], int)
    asked = np.full(values.shape[1], len(values))
    so_far = 0
    *looked_at, _ = batches(owner.tolist())
    for batch in looked_at:
        own = np.unique(owner[list(batch)])
        total, size = sums[own], sizes[own].astype(float)
        below += log_bets(total, size, goal, largest)
        above += log_bets(size[:, None] - total, size, 1 - floor, largest)
        so_far += len(batch)
        open_ = how == NOT_ENDED
        how[open_ & (log_mean(below) >= -math.log(tail))] = GAP
        how[open_ & (log_mean(above) >= -math.log(TAIL))] = MET
        asked[open_ & (how != NOT_ENDED)] = so_far
    return how, asked


def called(
    values: np.ndarray, sizes: np.ndarray, goal: float, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Per eval: whether all its items are called a gap, and met, at what is left of the error."""
    if sizes.max() == 1 and set(np.unique(values)) <= {0.0, 1.0}:
        n = len(values)
        right = values.sum(axis=0).astype(int).tolist()
        return (
            np.array([_is_gap(k, n, goal) for k in right], bool),
            np.array([_is_met(k, n, floor) for k in right], bool),
        )
    side = FINAL.interval / 2
    lows, highs = resampled_means(sim.sums_of(values, sizes), sizes.astype(float), 0.0, 1.0)
    return sim.is_above(-highs, -goal, side), sim.is_above(lows, floor, side)


@functools.cache
def _is_gap(right: int, n: int, goal: float) -> bool:
    return stats.p_below(sim.alone(right, n), goal) < FINAL.interval


@functools.cache
def _is_met(right: int, n: int, floor: float) -> bool:
    return stats.mean_interval(sim.alone(right, n), FINAL.of_interval).low >= floor


def shares(
    draw: Draw, sizes: np.ndarray, goal: float, floor: float, evals: int = sim.EVALS
) -> Shares:
    """What becomes of so many evals; in each block, the clusters come in another order."""
    random = sim.generator("early", len(sizes), goal, floor)
    found = []
    for _ in range(0, evals, BLOCK):
        mixed = random.permutation(sizes)
        values = draw(mixed, BLOCK, random)
        how, asked = ended(values, mixed, goal, floor)
        gap, met = how == GAP, how == MET
        early = [gap.mean(), met.mean()]
        rest = how == NOT_ENDED
        if rest.any():
            below, above = called(values[:, rest], mixed, goal, floor)
            met[rest] = above
            gap[rest] = below & ~above
        found.append([gap.mean(), met.mean(), *early, asked.mean() / len(values)])
    return Shares(*np.mean(found, axis=0).tolist())
