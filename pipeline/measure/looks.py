"""Looks at test: who looked at a test set before, and the goals that stood then.

A look is one adapter asked one thing: its goals, margins and largest drops, its prompts and items.
Asked the same again, it is the same look; with a goal moved it is another one, and the goal that
stood at the first look is named beside the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from evals.tasks.capability import CapabilitySpec
from pipeline.spec.subjects import subjects
from registry.store.kinds import PromotionMeta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.spec.spec import Spec
    from registry.catalog.catalog import Catalog

Terms: TypeAlias = Mapping[str, Mapping[str, float | bool]]
"""Capability -> goal and margin; guard -> max_drop and accept."""

_SHARED = """
SELECT DISTINCT theirs.object_id FROM parquet.stored_refs AS mine
JOIN parquet.stored_refs AS theirs ON theirs.row_hash = mine.row_hash
WHERE mine.object_id IN ? AND mine.split = 'test'
  AND theirs.object_id IN ? AND theirs.split = 'test'
"""


@dataclass(frozen=True)
class EarlierLook:
    """One look at the same test items, and what came of it."""

    look: int
    adapter_id: str
    promoted: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class MovedGoal:
    """A goal, margin or largest drop that isn't what it was when test was first looked at.

    `now` is None where the capability or guard was taken out, `stood` where the key wasn't there.
    """

    name: str
    key: str
    stood: float | bool | None
    now: float | bool | None
    look: int

    def __str__(self) -> str:
        """Return it in words."""
        if self.now is None:
            return f"{self.name} was asked at look {self.look} and is taken out"
        return f"{self.name}: {self.key} was {self.stood} at look {self.look} and is {self.now}"


@dataclass(frozen=True)
class Looks:
    """The number of this look at a test set, from 1, with those before it."""

    number: int
    earlier: tuple[EarlierLook, ...]
    moved: tuple[MovedGoal, ...]


def terms_of(spec: Spec) -> dict[str, dict[str, float | bool]]:
    """Return what a promotion is judged by."""
    return {
        what.name: {"goal": what.spec.goal, "margin": what.spec.margin}
        if isinstance(what.spec, CapabilitySpec)
        else {"max_drop": what.spec.max_drop, "accept": what.spec.accept}
        for what in subjects(spec)
    }


def moved(now: Terms, before: Sequence[tuple[int, Terms]]) -> tuple[MovedGoal, ...]:
    """Return what isn't as it stood at the first look that asked for it.

    Args:
        now: the terms of today.
        before: the number of each earlier look with its terms, in order.
    """
    first: dict[str, tuple[int, Mapping[str, float | bool]]] = {}
    for look, terms in before:
        for name, one in terms.items():
            first.setdefault(name, (look, one))
    found: list[MovedGoal] = []
    for name, (look, stood) in first.items():
        if name not in now:
            found.append(MovedGoal(name, next(iter(stood)), next(iter(stood.values())), None, look))
            continue
        found += [
            MovedGoal(name, key, stood.get(key), value, look)
            for key, value in now[name].items()
            if stood.get(key) != value
        ]
    return tuple(found)


def looks_at(catalog: Catalog, now: Terms, tests: Mapping[str, str], asked: str) -> Looks:
    """Return which look at these test sets it is to ask `asked` of them.

    Test sets are the same where they share a row: more rows in a dataset, or a higher limit, don't
    make those that were seen unseen.

    Args:
        catalog: where promotions are on record.
        now: what is asked for today.
        tests: capability or guard -> version of its dataset.
        asked: the digest of what is asked, and of which adapter.
    """
    promotions = [one.meta for one in catalog.committed(PromotionMeta, split="test")]
    same = _same(
        catalog, set(tests.values()), {v for one in promotions for v in one.tests.values()}
    )
    seen: dict[str, PromotionMeta] = {}
    for one in promotions:
        if same & set(one.tests.values()):
            seen.setdefault(one.asked or one.adapter_id, one)  # those of before had no `asked`
    before = list(seen)[: list(seen).index(asked)] if asked in seen else list(seen)
    earlier = [(look, seen[key]) for look, key in enumerate(before, 1)]
    return Looks(
        number=len(before) + 1,
        earlier=tuple(
            EarlierLook(look, one.adapter_id, one.promoted, tuple(one.reasons))
            for look, one in earlier
        ),
        moved=moved(now, [(look, one.goals) for look, one in earlier]),
    )


def _same(catalog: Catalog, mine: set[str], theirs: set[str]) -> set[str]:
    """Return those of `theirs` that are of `mine`, or share a test row with one of them."""
    others = theirs - mine
    if not others or not mine:
        return mine
    shared = catalog.query(_SHARED, [tuple(sorted(mine)), tuple(sorted(others))])
    return mine | {one for (one,) in shared.rows}
