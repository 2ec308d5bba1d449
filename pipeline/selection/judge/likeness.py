"""Likeness to a gap: how near a row has to be to its failures to be one of its kind. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float32]]
    Vector = np.ndarray[Any, np.dtype[np.float32]]

PASSED_OVER = 0.05
"""The share of a gap's own kind that its floor leaves out."""


def floor_of(failures: Matrix, share: float = PASSED_OVER) -> float:
    """Return the least likeness of a row to one of `failures` that makes it one of their kind.

    It is what all but `share` of the failures themselves have to their nearest other one: a row
    of their kind is as near to them as they are to each other. Never below 0.

    Args:
        failures: centred and L2-normalised, [m, d].
        share: of their kind that is left out.
    """
    import numpy as np

    if len(failures) < 2:  # noqa: PLR2004 - one has no other
        return 0.0
    among = failures @ failures.T
    np.fill_diagonal(among, -1.0)
    return max(0.0, float(np.quantile(among.max(axis=1), share)))


def nearest_to(rows: Matrix, failures: Matrix) -> Vector:
    """Return the cosine of each row to its nearest failure, both centred and L2-normalised."""
    import numpy as np

    if not len(failures):
        return np.full(len(rows), -1.0, np.float32)
    return np.asarray((rows @ failures.T).max(axis=1), np.float32)


def owners(likeness: Mapping[str, Vector], floors: Mapping[str, float]) -> list[str | None]:
    """Return for each row the gap that it is like: the nearest of those whose floor it reaches.

    None for a row that is like no gap. Every row has one owner, so that no two gaps get it.

    Args:
        likeness: gap -> the rows' cosines to its failures, all of one length.
        floors: gap -> its floor.
    """
    names = list(likeness)
    count = len(likeness[names[0]]) if names else 0
    found: list[str | None] = []
    for place in range(count):
        near = {name: float(likeness[name][place]) for name in names}
        like = [name for name in names if near[name] >= floors[name]]
        found.append(max(like, key=near.__getitem__) if like else None)
    return found
