"""The reasons for rejects: the commonest ones, each with its first row."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMONEST = 3
"""Reasons named when a stage stops."""

_NUMBER = re.compile(r"\d+")


def commonest(rejects: Iterable[tuple[str, str]]) -> str:
    """Return the three commonest reasons in one line, told by their first rows.

    Reasons that differ in numbers alone, such as that of tokens, are one.

    Args:
        rejects: reason and place of each row.
    """
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, str]] = {}
    for reason, place in rejects:
        kind = _NUMBER.sub("0", reason)
        counts[kind] += 1
        first.setdefault(kind, (reason, place))
    told = []
    for kind, count in counts.most_common(COMMONEST):
        reason, place = first[kind]
        told.append(f"{count} x {reason} (first {place})")
    return "; ".join(told)
