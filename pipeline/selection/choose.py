"""The choice of rows: drawn for a gap, nearest to what was lost for mending. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pipeline.selection.budget import label_quota

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float32]]

NEAR_DUPLICATE = 0.95
"""Cosine above which a row says what a chosen row says already."""


@dataclass(frozen=True)
class Pick:
    """One chosen row: its position among the candidates, and its cosine to the failure it met."""

    position: int
    score: float


@dataclass(frozen=True)
class Draw:
    """The positions of what was drawn, in order, and how many near-duplicates were passed over."""

    chosen: tuple[int, ...]
    near_duplicates: int


def draw(
    pool: Any, quota: int, labels: Sequence[str | None], near_duplicate: float = NEAR_DUPLICATE
) -> Draw:
    """Choose the first `quota` rows of `pool`, as many of each label as `label_quota` asks.

    Args:
        pool: candidates in an order that says nothing of them, [n, d], unit rows, dense or sparse.
        quota: rows wanted; fewer are returned if there are fewer that differ.
        labels: of each candidate, its label, or None where answers are no labels.
        near_duplicate: cosine above which a candidate is passed over.
    """
    unlike = _Unlike(pool, near_duplicate)
    floors = Counter(label_quota(Counter(one for one in labels if one is not None), quota))
    chosen: list[int] = []
    rest: list[int] = []
    for place, label in enumerate(labels):
        if label is None or not floors[label]:
            rest.append(place)
        elif unlike.take(place):
            floors[label] -= 1
            chosen.append(place)
    for place in rest:
        if len(chosen) >= quota:
            break
        if unlike.take(place):
            chosen.append(place)
    return Draw(tuple(sorted(chosen)), unlike.near_duplicates)


def choose_nearest(
    pool: Any, failures: Any, quota: int, near_duplicate: float = NEAR_DUPLICATE
) -> tuple[Pick, ...]:
    """Choose `quota` rows of `pool`: failures take turns, each taking its nearest row left.

    Args:
        pool: candidates, [n, d], unit rows, dense or sparse.
        failures: what the model got wrong, [m, d], as the candidates.
        quota: rows wanted; fewer are returned if there are fewer that differ.
        near_duplicate: cosine to a chosen row above which a candidate is passed over.
    """
    if quota <= 0 or not pool.shape[0] or not failures.shape[0]:
        return ()
    unlike = _Unlike(pool, near_duplicate)
    done: set[int] = set()
    chosen: list[Pick] = []
    for pick in _in_turn(cosines(failures, pool), done):
        done.add(pick.position)
        if unlike.take(pick.position):
            chosen.append(pick)
        if len(chosen) == quota:
            break
    return tuple(chosen)


class _Unlike:
    """What was chosen, as far as it rules out what says the same."""

    def __init__(self, pool: Any, near_duplicate: float) -> None:
        import numpy as np

        self._pool = pool
        self._near = near_duplicate
        self._closest = np.full(pool.shape[0], -2.0, np.float32)  # cosine to any chosen row
        self.near_duplicates = 0

    def take(self, place: int) -> bool:
        """Count a row as chosen, unless it is a near-duplicate of a chosen one."""
        import numpy as np

        if self._closest[place] > self._near:
            self.near_duplicates += 1
            return False
        mine = self._pool[place : place + 1]
        self._closest = np.maximum(self._closest, cosines(self._pool, mine)[:, 0])
        return True


def _in_turn(similarity: Matrix, done: set[int]) -> Iterator[Pick]:
    """Yield the nearest row of each failure in turn that isn't done, until none is left."""
    queues = [_nearest(row, done) for row in similarity]
    while queues:
        for queue in list(queues):
            pick = next(queue, None)
            if pick is None:
                queues.remove(queue)
            else:
                yield pick


def _nearest(scores: Matrix, done: set[int]) -> Iterator[Pick]:
    import numpy as np

    for place in np.argsort(-scores, kind="stable").tolist():
        if place not in done:
            yield Pick(place, float(scores[place]))


def cosines(left: Any, right: Any) -> Matrix:
    """Return the products of unit rows, [n, m], dense, whether they are sparse or not."""
    import numpy as np

    product = left @ right.T
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product, np.float32)


def interleave(gap: Sequence[Any], replay: Sequence[Any]) -> list[Any]:
    """Return both in one list, each in its order, the replayed spread evenly over the whole."""
    placed = [((i + 0.5) / len(gap), row) for i, row in enumerate(gap)]
    placed += [((i + 0.5) / len(replay), row) for i, row in enumerate(replay)]
    return [row for _, row in sorted(placed, key=itemgetter(0))]  # at one place the gap's first
