"""The bootstrap that bounds a mean of scores that are not just 0 and 1, or of items in clusters.

It is the Bayesian bootstrap (Rubin 1981: every cluster gets an exponential weight) over whole
clusters, with one more cluster that nobody saw and that scores the worst there is. Its one-sided
bounds are those of Gaffke (2005) and of Learned-Miller and Thomas (2019, arXiv:1905.06208): for
items of 0 and 1 they are exactly Clopper and Pearson's; for other scores within known limits no
distribution is known for which they fail. n items without any spread still leave open what
Clopper and Pearson leave open after n successes, so an interval over few identical items has width.

Why not a more usual one: a tuned model may lose a few items wholly, and a sample that holds few of
them looks harmless. Of 10,000 evals of F1-like scores with a loss of exactly max_drop = 0.05, so
many percent were called `kept` (nominal 5; all but ours with the floor under the error that items
without any spread leave open; "wider": of t and studentised):

    items; the loss; in clusters of 2-5      t  percentile   BCa  studentised  wider  ours
    200; a few items drop to 0; none       9.7         8.7   5.1          6.6    6.6   3.0
    200; a few items drop to 0; 30%       12.1        10.9   6.9          8.9    8.9   1.4
    50; some are rewritten; none           6.2         6.7   7.0          7.9    6.1   1.6
    50; some are rewritten; 30%            6.7         7.5   8.6          9.8    6.6   0.2

The price is width, about 3/n at each end where nothing is ever lost: 200 rewritten answers that are
no worse are `kept` at 0.05 in 68% of evals, where t would say so in 77%; of 1,000, both always do.
docs/internals/statistics.md has the whole table and the command that makes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 1_999
"""With 1,999, a tail of 2.5% or 5% ends at one of the resamples and not between two."""

_IN_TAIL = 5
"""Resamples that a smaller tail than those should hold, as after several looks at test."""

_MOST_RESAMPLES = 200_000
"""Of 1,000 items, two seconds. A tail that needs more has the worst score as its bound."""

_SEED = 0
_CELLS = 1 << 20
"""Weights that are drawn at a time: 8 MiB, whatever the number of clusters."""


@dataclass(frozen=True, slots=True)
class ResampledMeans:
    """The resampled means, ascending: with the unseen cluster at the worst, and at the best."""

    lows: Floats
    highs: Floats
    lowest: float
    highest: float

    def low(self, tail: float) -> float:
        """Return the lower bound that a true mean lies below with probability `tail` at most."""
        rank = self._rank(tail)
        return float(self.lows[rank - 1]) if rank else self.lowest

    def high(self, tail: float) -> float:
        """Return the upper bound that a true mean lies above with probability `tail` at most."""
        rank = self._rank(tail)
        return float(self.highs[-rank]) if rank else self.highest

    def p_at_most(self, bound: float) -> float:
        """Return the p-value of "the mean is at most `bound`": below tail iff low(tail) > bound."""
        return float((self.lows <= bound).sum() + 0.5) / (len(self.lows) + 1)

    def p_at_least(self, bound: float) -> float:
        """Return the p-value of "the mean is `bound` or more": below tail iff high(tail) < it."""
        return float((self.highs >= bound).sum() + 0.5) / (len(self.lows) + 1)

    def _rank(self, tail: float) -> int:
        """Return which mean, from the end, is the bound at `tail`; 0 where none is far enough."""
        # The half, here and in the p-values: p is never equal to 0.05, whichever way 1 - 0.95 is
        # rounded, and p and bound always agree.
        return max(0, math.ceil(tail * (len(self.lows) + 1) - 0.5))


def resample(
    values: Sequence[float],
    clusters: Sequence[int],
    lowest: float,
    highest: float,
    tail: float = 1.0,
) -> ResampledMeans:
    """Resample the mean of `values`, which lie between `lowest` and `highest`, by clusters.

    `tail` is the smallest that is asked for: there are resamples enough for it.
    """
    import numpy as np

    _, owner = np.unique(np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(owner).astype(np.float64)
    sums = np.bincount(owner, weights=np.asarray(values)).astype(np.float64)
    count = min(_MOST_RESAMPLES, max(RESAMPLES, math.ceil(_IN_TAIL / tail)))
    lows, highs = resampled_means(sums[:, None], sizes, lowest, highest, count)
    return ResampledMeans(np.sort(lows[:, 0]), np.sort(highs[:, 0]), lowest, highest)


def resampled_means(
    sums: Floats, sizes: Floats, lowest: float, highest: float, resamples: int = RESAMPLES
) -> tuple[Floats, Floats]:
    """Return the resampled means of evals, one a column, whose clusters have the same sizes.

    The weights depend on the number of clusters alone, so the same scores always give the same
    bounds, and before and after exchanged give them mirrored.

    Args:
        sums: the sum of the scores of each cluster, one a row; one column an eval.
        sizes: the number of items of each cluster.
        lowest: what the items of the unseen cluster score for the first result.
        highest: and for the second.
        resamples: how many means of each eval.

    Returns:
        Two arrays of `resamples` rows, one column an eval, unsorted.
    """
    import numpy as np

    # As large as the cluster that a random item is in (Kish): the mean size would call a loss
    # `kept` in 15% of evals where half of the items are in clusters of ten that are lost whole.
    unseen = float((sizes * sizes).sum() / sizes.sum())
    # The weights of the unseen cluster are not drawn but spread evenly over their distribution:
    # where the scores hardly differ, they alone decide, and a draw would leave noise of a tenth.
    heavy = unseen * -np.log((np.arange(resamples) + 0.5) / resamples)
    random = np.random.default_rng(_SEED)
    lows = np.empty((resamples, sums.shape[1]))
    highs = np.empty_like(lows)
    step = max(1, _CELLS // max(len(sizes), sums.shape[1]))
    for start in range(0, resamples, step):
        rows = slice(start, min(start + step, resamples))
        weights = random.standard_exponential((rows.stop - start, len(sizes)))
        extra = heavy[rows, None]
        total, size = weights @ sums, (weights @ sizes)[:, None] + extra
        lows[rows] = (total + lowest * extra) / size
        highs[rows] = (total + highest * extra) / size
    return lows, highs
