"""Which evaluations of models can be laid side by side, item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pipeline.site.site import Site

BASE = "base"
"""Stands for the base where an adapter's id may stand, too."""

# The newest of each way to ask. Base and adapters of one base alone are laid side by side.
_EVALS = """
SELECT eval_id, subject, split, arm, coalesce(adapter_id, 'base'), items, score, low, high
FROM eval_results
WHERE scale = 1 AND split IN ? AND (adapter_id IS NULL OR adapter_id IN ?)
QUALIFY row_number() OVER (
    PARTITION BY subject, split, arm, items, base, adapter_id ORDER BY created_at DESC
) = 1
ORDER BY subject, split, arm, items
"""


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on a subject and split; `model` is an adapter's id or `BASE`."""

    id: str
    subject: str
    split: str
    arm: str
    model: str
    items: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Subject:
    """A capability or guard on a split: model -> its evaluation, all of one way of asking."""

    name: str
    split: str
    items: int
    of: dict[str, Evaluation]


def subjects(
    site: Site, models: Sequence[str], splits: Collection[str] = ("dev", "test")
) -> list[Subject]:
    """Return what some models were asked: of each subject the way that most of them were asked.

    Among ways that as many were asked, it is the one with the most items.
    """
    wanted = tuple(models)
    rows = site.catalog.query(_EVALS, [tuple(splits), ("", *wanted)]).rows
    ways: dict[tuple[str, str], dict[tuple[str, int], dict[str, Evaluation]]] = {}
    for one in (Evaluation(*row) for row in rows):
        if one.model in wanted:
            asked = ways.setdefault((one.subject, one.split), {})
            asked.setdefault((one.arm, one.items), {})[one.model] = one
    return [
        Subject(name, split, items, of)
        for (name, split), asked in ways.items()
        for (_, items), of in [max(asked.items(), key=lambda way: (len(way[1]), way[0][1]))]
    ]
