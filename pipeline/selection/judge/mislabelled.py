"""Rows that look wrong: a label that its neighbours deny, an answer that the base can't believe.

Pure. The thresholds were measured, see docs/internals/decisions/0025-rows-that-are-kept-out.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.selection.choose import cosines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NEIGHBOURS = 20
"""At most; no more than there are other rows with the row's own label."""

FEWEST_ALIKE = 5
"""Other rows with its label without which nothing is said of a row."""

MARGIN = 0.3
"""The votes of another label, less those of the row's own, from which a label is doubted."""

LEAST_AGREEMENT = 0.4
"""Neighbours are believed where they foretell labels by so much of what chance leaves open.

It is Cohen's kappa of each row's label and its neighbours' commonest: 0 is chance, 1 is all.
"""

LOSS_DEVIATIONS = 3.0
"""Deviations above the median loss (scaled MAD) from which an answer is doubted."""

APART, MOST_WRONG, EVIDENCE = 2.5, 0.25, 2.0
"""Answers are of two kinds where their losses are so many deviations apart, the higher are at most
so large a share, and the BIC is better by so much (Kass and Raftery's positive evidence)."""

FEWEST = 40
"""Rows without which nothing is said of any."""

_MAD = 1.4826  # makes the median deviation that of a normal distribution
_BLOCK = 1024
_ROUNDING = 1e-6
_BEGUN = (0.45, 0.95)  # quantiles that two kinds are looked for from: many usual ones, few high
_NORMAL = 1e-3  # of a loss per token: where all are the same, nothing deviates by less


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row that looks wrong: its position, and why."""

    position: int
    why: str


def doubted_labels(asked: Any, labels: Sequence[str]) -> list[Doubt]:
    """Return the rows whose nearest rows have another label.

    Twenty are asked, and fewer where fewer have the row's own label: a rare one isn't outvoted by
    rows that are merely the next. A neighbour's vote counts by its cosine. No row is doubted where
    neighbours don't foretell labels (`LEAST_AGREEMENT`), or where rows are few.

    Args:
        asked: unit rows of the questions alone, [n, d], dense or sparse; with the label in the
            text, a wrong one would have the wrong neighbours.
        labels: of each row.
    """
    import numpy as np

    if len(labels) < FEWEST:
        return []
    names, own = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    foretold, other, against = np.zeros_like(own), np.zeros_like(own), np.zeros(len(labels))
    near = np.zeros((len(labels), NEIGHBOURS), np.int64)
    alike = np.minimum(np.bincount(own)[own] - 1, NEIGHBOURS)
    for rows, nearest, cosine in _neighbours(asked):
        votes = np.zeros((len(rows), len(names)))
        weights = np.maximum(cosine, 0) * (np.arange(NEIGHBOURS) < alike[rows, None])
        np.add.at(votes, (np.arange(len(rows))[:, None], own[nearest]), weights)
        votes /= np.maximum(votes.sum(axis=1, keepdims=True), 1e-12)
        mine = np.arange(len(rows)), own[rows]
        near[rows], foretold[rows], against[rows] = nearest, votes.argmax(axis=1), -votes[mine]
        votes[mine] = 0.0
        other[rows] = votes.argmax(axis=1)
        against[rows] += votes.max(axis=1)
    if _agreement(own, foretold) < LEAST_AGREEMENT:
        return []
    found = np.flatnonzero((against > MARGIN - _ROUNDING) & (alike >= FEWEST_ALIKE))
    return [
        Doubt(
            place,
            f"looks mislabelled: {int((own[near[place, : alike[place]]] == other[place]).sum())} "
            f"of the {alike[place]} rows most like it say {str(names[other[place]])!r}, and it "
            f"says {str(names[own[place]])!r}",
        )
        for place in found.tolist()
    ]


def doubted_answers(losses: Sequence[float]) -> list[Doubt]:
    """Return the rows whose answer the base finds far less likely than those of the others.

    Args:
        losses: of each row, the base's mean loss a token of its answer; NaN where there is none.
    """
    import numpy as np

    values = np.asarray(losses, np.float64)
    known = values[np.isfinite(values)]
    if len(known) < FEWEST:
        return []
    middle = float(np.median(known))
    spread = max(_MAD * float(np.median(np.abs(known - middle))), _NORMAL)
    limit = min(middle + LOSS_DEVIATIONS * spread, _between_kinds(known))
    return [
        Doubt(
            int(place),
            f"looks wrong: the base's loss on its answer is {values[place]:.2f} a token, and "
            f"{middle:.2f} on half of the rows",
        )
        for place in np.flatnonzero(np.nan_to_num(values, nan=middle) > limit)
    ]


def _between_kinds(values: Any) -> float:
    """Return the value that parts a few high ones from the others, where they are another kind.

    Wrong answers in one form (an order's JSON with another's figures) are a small heap of their
    own beside the right ones, though no single one lies far out. Two normal distributions must
    explain the values better than one (BIC), with means `APART` deviations from each other
    (Ashman's D); else it is infinite.
    """
    import numpy as np
    from sklearn.mixture import GaussianMixture

    if len(np.unique(values)) < FEWEST // 2:
        return float("inf")
    column = values[:, None]
    one = GaussianMixture(1, random_state=0, reg_covar=_NORMAL**2).fit(column)
    begun = np.quantile(values, _BEGUN)[:, None]
    two = GaussianMixture(2, random_state=0, reg_covar=_NORMAL**2, means_init=begun).fit(column)
    low, high = np.argsort(two.means_[:, 0])
    means, variances = two.means_[:, 0], two.covariances_[:, 0, 0]
    apart = np.sqrt(2) * (means[high] - means[low]) / np.sqrt(variances.sum())
    are_few = two.weights_[high] <= MOST_WRONG
    if apart < APART or not are_few or one.bic(column) - two.bic(column) < EVIDENCE:
        return float("inf")
    usual = (two.predict(column) == low) | (values <= means[low])
    return float(values[usual].max())


def _neighbours(asked: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield rows, their nearest other rows, the nearest first, and the cosines, block by block."""
    import numpy as np

    for start in range(0, asked.shape[0], _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, asked.shape[0]))
        cosine = cosines(asked[start : start + _BLOCK], asked)
        cosine[np.arange(len(rows)), rows] = -2.0  # not itself
        near = np.argpartition(-cosine, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        found = np.take_along_axis(cosine, near, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        yield (
            rows,
            np.take_along_axis(near, order, axis=1),
            np.take_along_axis(found, order, axis=1),
        )


def _agreement(own: Any, foretold: Any) -> float:
    """Return Cohen's kappa of two labellings."""
    total = len(own)
    mine, theirs = Counter(own.tolist()), Counter(foretold.tolist())
    chance = sum(count * theirs[label] for label, count in mine.items()) / total**2
    return float(((own == foretold).mean() - chance) / (1 - chance)) if chance < 1 else 0.0
