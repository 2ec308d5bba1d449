"""What would settle an inconclusive verdict, and how to get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.spec.subjects import subject
from registry.store.kinds import VersionMeta

if TYPE_CHECKING:
    from pipeline.workspace.resolved import Resolved


@dataclass(frozen=True)
class Supply:
    """The items of one capability or guard in one split.

    Attributes:
        key: where the spec has it, such as `guards.days`.
        split: `dev` or `test`.
        n: items that were scored.
        there: items that there are; None where that isn't known (an lm-eval task's).
        limit: the spec's limit, if any.
        dataset: the dataset's name; None for an lm-eval task.
        width: the key that decides how much is to be shown: `margin` or `max_drop`.
    """

    key: str
    split: str
    n: int
    there: int | None
    limit: int | None
    dataset: str | None
    width: str


def supply_of(ws: Resolved, name: str, split: str, n: int) -> Supply:
    """Return the items of a capability or guard in a split, `n` of which were scored."""
    what, there = subject(ws.spec, name), None
    if (data := what.spec.data) is not None:
        there = ws.catalog.manifest(ws.versions[data], VersionMeta).meta.splits.get(split)
    guard = what.role == "guard"
    key = f"guards.{name}" if guard else f"capabilities.{name}"
    width = "max_drop" if guard else "margin"
    return Supply(key, split, n, there, what.spec.limit, data, width)


def how_to_settle(supply: Supply, items: int | None) -> str:
    """Return how many items would settle a verdict and where they come from. Pure.

    Args:
        supply: the items that there are.
        items: how many would settle it; None if no number would.
    """
    key, split, limit = supply.key, supply.split, supply.limit
    if items is None:
        return f"no number of items would settle it: only a wider {key}.{supply.width} would"
    wanted = f"about {items:,} items would settle it"
    cut = limit is not None and limit <= supply.n
    there = supply.n if supply.there is None else supply.there
    if cut and there >= items:
        return f"{wanted}, {there:,} are there and {key}.limit is {limit:,}: raise it to {items:,}"
    if supply.dataset is None:
        more = f"raise {key}.limit, which is {limit:,}" if cut else "the task has no more"
        return f"{wanted}, {supply.n:,} were scored: {more}"
    freed = f"take {key}.limit out and " if cut else ""
    add = f"add {max(1, items - there):,} rows to {split} of dataset '{supply.dataset}'"
    return f"{wanted}, {there:,} are there: {freed}{add}"
