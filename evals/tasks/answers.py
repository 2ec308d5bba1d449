"""Answers that may not be meant: labels that differ in writing alone, and a table's missing cells.

Pure: answers with their counts in, findings out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from evals.tasks.scorers import normal

if TYPE_CHECKING:
    from collections.abc import Iterable

# What spreadsheets and pandas write for a cell without a value; `none` and `na` may be labels.
_MISSING = frozenset(
    (
        *("nan", "NaN", "NAN", "NaT", "<NA>", "NULL", "null", "None", "N/A", "n/a", "undefined"),
        *("#N/A", "#NA", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!"),
    )
)


# pandas makes all integers of a column floats where one cell is empty.
_WHOLE = re.compile(r"([+-]?\d+)\.0+")


def alike(answers: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of answers that differ by case, space, width, Unicode form or a .0 alone."""
    groups: dict[str, list[str]] = {}
    for answer in dict.fromkeys(answers):
        plain = "".join(normal(answer).split())
        whole = _WHOLE.fullmatch(plain)
        groups.setdefault(whole[1] if whole else plain, []).append(answer)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def is_missing(answer: str) -> bool:
    """Whether an answer is what a table's missing or broken cell is written as."""
    return answer.strip() in _MISSING
