"""The subjects whose items can never settle their verdict, however they are answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evals.tasks.capability import CapabilitySpec
from evals.verdicts.looks import DEV, level_at
from evals.verdicts.sample_size import (
    CHURN,
    least_to_keep,
    least_to_miss,
    least_to_reach,
    usual_to_keep,
)
from pipeline.outlook.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.spec.subjects import Subject

SPLITS = ("dev", "test")
LEVELS = {"dev": DEV, "test": level_at(1)}
"""The errors that verdicts may make on each, on test at the first look."""


def unsettled(what: Subject, rows: Mapping[str, int], family: int) -> Iterator[Finding]:
    """Yield what the items of a capability or guard can't show.

    Args:
        what: it.
        rows: split -> rows that there are, dev and test.
        family: how many capabilities are judged together.
    """
    spec = what.spec
    items = {split: min(rows[split], spec.limit or rows[split]) for split in SPLITS}
    if missing := [split for split in SPLITS if not items[split]]:
        yield Finding(
            (what.section, what.name, "data" if spec.data else "lm_eval"),
            f"it has no items in {' and '.join(missing)}, so it can't be measured",
            expected="rows in dev (for gap and mend) and in test (for promote)",
            fix=f"give it more rows, or a path or split of its own: datasets.{spec.data}"
            if spec.data
            else "name a task with more documents",
            stops=True,
        )
        return
    if isinstance(spec, CapabilitySpec):
        yield from _goal(what, spec, items, rows, family)
        return
    least = {s: least_to_keep(spec.max_drop, level.of_bound) for s, level in LEVELS.items()}
    if short := _short(items, rows, least):
        usual = usual_to_keep(spec.max_drop, max(LEVELS[s].of_bound for s in short.splits))
        yield Finding(
            short.key(what),
            f"{short.said} can never show that it is kept: max_drop is {spec.max_drop:g}",
            expected=f"{short.wanted}, if no answer changes, and about {usual:,} if {CHURN:.0%} "
            "are lost and as many gained",
            fix=short.fix(f"guards.{what.name}.max_drop", task=spec.data is None),
        )


def _goal(
    what: Subject,
    spec: CapabilitySpec,
    items: Mapping[str, int],
    rows: Mapping[str, int],
    family: int,
) -> Iterator[Finding]:
    floor = spec.goal - spec.margin
    reach = {s: least_to_reach(floor, level.of_interval) for s, level in LEVELS.items()}
    least = {split: count for split, count in reach.items() if count is not None}
    if not least:
        yield Finding(
            (what.section, what.name, "goal"),
            f"no number of items can show that a goal of {spec.goal:g} is reached, as its margin "
            f"is {spec.margin:g}",
            fix="set a goal below 1, or a margin above 0",
        )
    elif short := _short(items, rows, least):
        yield Finding(
            short.key(what),
            f"{short.said} can never show that the goal is reached: {spec.goal:g} with a margin of "
            f"{spec.margin:g}",
            expected=f"{short.wanted}, if all are answered right",
            fix=short.fix(f"capabilities.{what.name}.margin"),
        )
    miss = least_to_miss(spec.goal, family)
    if miss and (short := _short(items, rows, {"dev": miss})):
        yield Finding(
            short.key(what),
            f"{short.said} can never show that there is a gap: the goal is {spec.goal:g}",
            expected=f"{short.wanted}, if none is answered right",
            fix=short.fix(),
        )


@dataclass(frozen=True)
class _Short:
    """Items that are too few: `said` as "90 items in dev (of 480, by limit)"."""

    said: str
    wanted: str
    splits: tuple[str, ...]
    limited: bool
    enough: bool  # there are rows enough, without the limit

    def key(self, what: Subject) -> tuple[str, ...]:
        return (what.section, what.name, *(("limit",) if self.limited else ()))

    def fix(self, allowed: str | None = None, *, task: bool = False) -> str:
        ways = ["raise limit"] if self.limited else []
        more = "take a task with more documents" if task else "add rows to dev and test"
        ways += [] if self.limited and self.enough else [more]
        return " and ".join(ways) + (f", or raise {allowed}" if allowed else "")


def _short(
    items: Mapping[str, int], rows: Mapping[str, int], least: Mapping[str, int]
) -> _Short | None:
    """Return where items are fewer than `least`; None where they are enough."""
    few = {split: items[split] for split, wanted in least.items() if items[split] < wanted}
    if not few:
        return None
    of = {split: f" (of {rows[split]:,}, by limit)" for split in few if few[split] < rows[split]}
    said = [
        f"{count:,}{'' if place else ' items'} in {split}{of.get(split, '')}"
        for place, (split, count) in enumerate(few.items())
    ]
    wanted = " and ".join(
        f"{least[split]:,}{'' if place else ' items'} in {split}" for place, split in enumerate(few)
    )
    enough = all(rows[split] >= least[split] for split in few)
    return _Short(" and ".join(said), f"at least {wanted}", tuple(few), bool(of), enough)
