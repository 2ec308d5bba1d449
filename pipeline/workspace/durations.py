"""Durations as people write them."""

from __future__ import annotations

_MINUTE, _HOUR = 60, 3600
_ENOUGH = 20  # of what is counted, whatever the total


def in_time(seconds: float) -> str:
    """Return a duration as people write it: 4.2 min."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds / _HOUR:.1f} h"


def time_left(done: int, total: int | None, *, first: int, seconds: float) -> float | None:
    """Return the seconds until `total`, at the pace since `first` were done.

    Args:
        done: of what is counted.
        total: of it; None where that isn't known.
        first: how many were done when the time began, such as answers found in a journal.
        seconds: since then.

    Returns:
        None where it can't be said: too little was done since to know the pace, or all is done and
        something else is going on.
    """
    if total is None or not first < done < total or seconds < 1:
        return None
    if done - first < min(_ENOUGH, total / 100):
        return None  # 2 of 1,000 in the first half minute: hours, and then it is done in minutes
    return (total - done) * seconds / (done - first)
