"""Likeness to a gap: how near a row has to be to its failures to be one of its kind. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.selection.choose import cosines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    Vector = np.ndarray[Any, np.dtype[np.float32]]

PASSED_OVER = 0.05
"""The share of a gap's own kind that its floor leaves out."""


def floor_of(failures: Any, others: Any, share: float = PASSED_OVER) -> float:
    """Return the least likeness of a row to one of `failures` that makes it one of their kind.

    It is what all but `share` of the failures themselves have to their nearest other one: a row
    of their kind is as near to them as they are to each other. Failures may be nearer to each
    other than to rows of their kind in other words, so that it is at most half-way from what is
    usual among the pool's rows to what is usual among failures. Never below 0.

    Args:
        failures: unit rows, [m, d], dense or sparse.
        others: of a sample of the pool, as the failures.
        share: of their kind that is left out.
    """
    import numpy as np

    if failures.shape[0] < 2:  # noqa: PLR2004 - one has no other
        return 0.0
    among = cosines(failures, failures)
    np.fill_diagonal(among, -1.0)
    nearest = among.max(axis=1)
    floor = float(np.quantile(nearest, share))
    if others.shape[0]:
        usual = float(np.median(cosines(others, failures).max(axis=1)))
        floor = min(floor, (usual + float(np.median(nearest))) / 2)
    return max(0.0, floor)


def above_floor(rows: Any, forms: Sequence[Any], floors: Sequence[float]) -> Vector:
    """Return how far above its floor each row's cosine to its nearest failure is; below 0: unlike.

    Args:
        rows: unit rows, [n, d], dense or sparse.
        forms: the failures in each form that a row may have; the form it is nearest in counts.
        floors: of each form.
    """
    import numpy as np

    found = np.full(rows.shape[0], -1.0, np.float32)
    for failures, floor in zip(forms, floors, strict=True):
        if failures.shape[0] and rows.shape[0]:
            found = np.maximum(found, cosines(rows, failures).max(axis=1) - floor)
    return found


def owners(above: Mapping[str, Vector]) -> list[str | None]:
    """Return for each row the gap that it is like: the one whose floor it is farthest above.

    None for a row that is like no gap. Every row has one owner, so that no two gaps get it.

    Args:
        above: gap -> `above_floor` of the rows, all of one length.
    """
    if not above:
        return []
    names = list(above)
    found: list[str | None] = []
    for values in zip(*(above[name].tolist() for name in names), strict=True):
        best = max(range(len(names)), key=values.__getitem__)
        found.append(names[best] if values[best] >= 0 else None)
    return found
