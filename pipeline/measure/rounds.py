"""The record of a round of mending."""

from __future__ import annotations

from dataclasses import dataclass, field

STAGE = "mend"


@dataclass(frozen=True)
class Round:
    """What one adapter came to on dev, and what was done about it.

    Attributes:
        number: 0 for the adapter that mending began with.
        adapter_id: it, as trained.
        selection_id: the rows that it was trained on.
        rows: how many, and of them replayed: `replay_rows`.
        added: name -> rows added (or taken away) since the round before.
        unfilled: what the round before lost and this one added nothing for -> why, and what helps.
        closed: tuned capability -> verdict.
        kept: guard, or capability that was not tuned -> verdict, `accepted` where the spec says so.
        lost: the same -> items lost; `gained` likewise.
        scale: that everything holds at: 1 as trained, smaller ones published as another adapter,
            None where no scale will do.
        curve: scale -> name -> mean score there, as far as it was measured; of what was lost and
            what is open at least, where something was lost while a gap is open.
    """

    number: int
    adapter_id: str
    selection_id: str
    rows: int
    replay_rows: int
    added: dict[str, int]
    closed: dict[str, str]
    kept: dict[str, str]
    lost: dict[str, int]
    gained: dict[str, int]
    scale: float | None
    unfilled: dict[str, str] = field(default_factory=dict)
    curve: dict[str, dict[str, float]] = field(default_factory=dict)
