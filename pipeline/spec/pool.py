"""The pool: the datasets that rows may be chosen from, and which rows an objective learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.spec.subjects import measured_datasets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pipeline.spec.spec import Spec

TRAINABLE = {
    "sft": frozenset(("sft", "preference", "text")),
    "dpo": frozenset(("preference",)),
    "orpo": frozenset(("preference",)),
    "kto": frozenset(("feedback",)),
}
"""Objective -> the kinds of rows that it learns from."""

_CALLED = {
    "sft": "instructions with an answer",
    "preference": "preference pairs",
    "feedback": "answers with feedback",
    "text": "plain texts",
}

_WHERE = {"dev": "in dev", "test": "in test", "held": "held for being near others"}


@dataclass(frozen=True)
class DatasetRows:
    """How many rows of a dataset are in which split, and of which kind those in train are.

    Attributes:
        splits: split -> rows.
        kinds: of those in train -> rows.
        held: where all that an objective learns from is in a dev or test set: by what -> rows.
    """

    splits: Mapping[str, int]
    kinds: Mapping[str, int]
    held: Mapping[str, int] = field(default_factory=dict)

    def trainable(self, objective: str) -> int:
        """Return how many rows an objective learns from."""
        if self.held:
            return 0
        return sum(rows for kind, rows in self.kinds.items() if kind in TRAINABLE[objective])


def pool_of(spec: Spec) -> tuple[str, ...]:
    """Return the pool's datasets; without one in the spec, those of the capabilities."""
    named = spec.train.pool or [one.data for one in spec.capabilities.values()]
    return tuple(dict.fromkeys(named))


def free_datasets(spec: Spec) -> tuple[str, ...]:
    """Return the pool's datasets that no capability or guard measures, a chat corpus for instance.

    Their rows may serve any capability, and replay.
    """
    measured = measured_datasets(spec)
    return tuple(name for name in pool_of(spec) if name not in measured)


OWN_TEXT = "own text"
"""What the base's own text, and the stage that makes it, go by. No name of a spec is like it."""

OWN_TEXT_SHARE = 0.05


def own_text_share(spec: Spec) -> float | None:
    """Return the share of rows that is the base's own text at first; None: never any.

    Where the spec doesn't say: some, if a guard is an lm-eval task, which has no rows to replay,
    and no free dataset of the pool serves it. None at first, and some when it is lost, for a
    witness, whose rows may not be replayed. Where all that is measured has rows of its own, never.
    """
    train = spec.train
    if train.general is not None:
        return train.general or None
    if train.objective != "sft" or free_datasets(spec):
        return None
    if any(guard.data is None for guard in spec.guards.values()):
        return OWN_TEXT_SHARE if train.replay else 0.0
    return 0.0 if spec.witnesses else None


def untaught(spec: Spec, rows: Mapping[str, DatasetRows]) -> dict[str, str]:
    """Return each capability that no row of the pool can teach, with the reason.

    Args:
        spec: with capabilities, pool and objective.
        rows: dataset -> its rows; one that isn't among them is taken to have some.
    """
    objective = spec.train.objective
    if any(name not in rows or rows[name].trainable(objective) for name in free_datasets(spec)):
        return {}
    found = {}
    for name, one in spec.capabilities.items():
        if one.data not in pool_of(spec):
            found[name] = f"its dataset '{one.data}' is not in train.pool"
        elif one.data in rows and not rows[one.data].trainable(objective):
            found[name] = no_rows(one.data, rows[one.data], objective)
    return found


def no_rows(dataset: str, rows: DatasetRows, objective: str) -> str:
    """Return why an objective learns nothing from a dataset of which it has no row."""
    others = sum(rows.splits.values())
    if not others:
        return f"dataset '{dataset}' has no row that can be used"
    if not rows.splits.get("train"):
        where = _joined([f"{n:,} {_WHERE[s]}" for s in _WHERE if (n := rows.splits.get(s, 0))])
        return f"none of the {others:,} rows of dataset '{dataset}' is for training ({where})"
    if rows.held:
        how = _joined([f"{count:,} {kind}" for kind, count in sorted(rows.held.items())])
        many = sum(rows.held.values())
        each = "the one row" if many == 1 else f"each of the {many:,} rows"
        return f"{each} of dataset '{dataset}' for training is in a dev or test set too ({how})"
    are = _joined([f"{count:,} {called((kind,))}" for kind, count in sorted(rows.kinds.items())])
    return (
        f"{objective} learns from {called(TRAINABLE[objective])}, and dataset '{dataset}' has "
        f"{are} for training"
    )


def called(kinds: Collection[str]) -> str:
    """Return what rows of these kinds are called."""
    return _joined([_CALLED[kind] for kind in sorted(kinds)])


def _joined(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
