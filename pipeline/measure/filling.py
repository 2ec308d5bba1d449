"""What a round of mending adds for what was lost; and where it can add nothing, why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True)
class RowSource:
    """Where rows for one guard, or capability that was met, come from.

    Attributes:
        key: where the spec has it, such as `guards.days`.
        dataset: its dataset; None for an lm-eval task.
        there: the dataset's rows for training.
        replayed: those of them that are in the selection: the base gets them right.
        short: how many more were wanted and not there.
        witness: none of them may be trained on.
    """

    key: str
    dataset: str | None
    there: int
    replayed: int
    short: int
    witness: bool


def unfilled(
    lost: Sequence[str], added: Mapping[str, int], sources: Collection[str], free: Collection[str]
) -> tuple[str, ...]:
    """Return what was lost and gets no row in the next round.

    Args:
        lost: what was lost.
        added: name -> rows that the next round has more (or fewer) than the last.
        sources: names whose own rows may be replayed.
        free: names of what serves all that has no rows of its own, such as a chat dataset.
    """
    general = any(added.get(name, 0) > 0 for name in free)
    return tuple(
        name for name in lost if added.get(name, 0) <= 0 and (name in sources or not general)
    )


def why_unfilled(source: RowSource, full: int | None) -> str:
    """Return why nothing is added for something that was lost, and what would help.

    Args:
        source: where its rows come from.
        full: the rows that the selection may have, where it has as many already.
    """
    name = source.key.partition(".")[2]
    if source.witness:
        return (
            f"{name} is a witness, so none of its rows is trained on: a chat dataset in "
            "train.pool, a higher train.general or a lower train.learning_rate may keep it; with "
            f"{source.key}.replay: true its rows are replayed, and it is a witness no more"
        )
    if source.dataset is None:
        return (
            f"{name} has no rows to replay, being an lm-eval task: name a chat dataset in "
            "train.pool, raise train.general, or add a guard with data that asks the like"
        )
    if full is not None and not source.short:
        most = f"the selection may have no more than its {full:,} rows"
        return f"{name}: {most}: raise train.budget_rows"
    wanted = f", {source.short:,} more were wanted" if source.short else ""
    return (
        f"{name}: of {source.there:,} rows for training in dataset '{source.dataset}' the "
        f"{source.replayed:,} that the base gets right are replayed already{wanted}: add rows to it"
    )
