"""The choice of rows: nearest to the failures, round robin, no repeats. Pure, vectors given."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pipeline.selection.budget import label_quota

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
class Picks:
    """What was chosen, in order, and how many candidates were passed over as near-duplicates."""

    chosen: tuple[Pick, ...]
    near_duplicates: int


def choose_nearest(
    pool: Any,
    failures: Any,
    quota: int,
    *,
    labels: Sequence[str | None],
    wanted: Sequence[str | None],
    near_duplicate: float = NEAR_DUPLICATE,
) -> Picks:
    """Choose `quota` rows of `pool`, each the nearest one left to one failure after the other.

    First every label gets its floor (`label_quota`), each label served by its own failures where
    it has any. Then the failures take turns in their order, each taking its nearest row that is
    left and is no near-duplicate of a chosen one.

    Args:
        pool: candidates, [n, d], unit rows, dense or sparse.
        failures: what the model got wrong, [m, d], as the candidates.
        quota: rows wanted; fewer are returned if there are fewer that differ.
        labels: of each candidate, its label, or None where answers are no labels.
        wanted: of each failure, the right label, or None.
        near_duplicate: cosine above which a candidate is passed over.
    """
    if quota <= 0 or not pool.shape[0] or not failures.shape[0]:
        return Picks((), 0)
    search = _Search(pool, failures, near_duplicate)
    floors = label_quota(Counter(label for label in labels if label is not None), quota)
    turns = {
        label: search.turns(
            [i for i, right in enumerate(wanted) if right == label] or range(failures.shape[0]),
            [i for i, own in enumerate(labels) if own == label],
        )
        for label in sorted(floors)
    }
    for number in range(max(floors.values(), default=0)):
        for label, floor in sorted(floors.items()):
            if number < floor:  # they add up to the quota at most
                search.take(turns[label])
    everything = search.turns(range(failures.shape[0]), range(pool.shape[0]))
    while len(search.chosen) < quota and search.take(everything):
        pass
    return Picks(tuple(search.chosen), search.near_duplicates)


class _Search:
    """The state of one choice: what is chosen, what was passed over, the similarities."""

    def __init__(self, pool: Any, failures: Any, near_duplicate: float) -> None:
        import numpy as np

        self._pool = pool
        self._similarity = cosines(failures, pool)
        self._near = near_duplicate
        self._closest = np.full(pool.shape[0], -2.0, np.float32)  # cosine to any chosen row
        self._done = np.zeros(pool.shape[0], np.bool_)
        self.chosen: list[Pick] = []
        self.near_duplicates = 0

    def turns(self, failures: Iterable[int], candidates: Sequence[int]) -> Iterator[Pick]:
        """Yield the nearest candidate left of each failure in turn, until none is left."""
        import numpy as np

        allowed = np.asarray(candidates, dtype=np.int64)
        queues = [self._nearest(failure, allowed) for failure in failures]
        while queues:
            for queue in list(queues):
                pick = next(queue, None)
                if pick is None:
                    queues.remove(queue)
                else:
                    yield pick

    def take(self, turns: Iterator[Pick]) -> bool:
        """Choose the next of `turns` that is no near-duplicate; False when there is none."""
        import numpy as np

        for pick in turns:
            self._done[pick.position] = True
            if self._closest[pick.position] > self._near:
                self.near_duplicates += 1
                continue
            mine = self._pool[pick.position : pick.position + 1]
            self._closest = np.maximum(self._closest, cosines(self._pool, mine)[:, 0])
            self.chosen.append(pick)
            return True
        return False

    def _nearest(self, failure: int, allowed: np.ndarray[Any, Any]) -> Iterator[Pick]:
        """Yield the rows of `allowed` that are left when asked, nearest to `failure` first."""
        import numpy as np

        scores = self._similarity[failure, allowed]
        for place in np.argsort(-scores, kind="stable"):
            position = int(allowed[place])
            if not self._done[position]:
                yield Pick(position, float(scores[place]))


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
