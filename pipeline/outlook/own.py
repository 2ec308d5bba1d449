"""What the base writes for its own training and reads beside it: own answers, own text, KL's pass.

Counted as if no drawn answer were right before the last, and each text were as long as it may be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.selection.judge.readings import TOGETHER, most_answer_tokens
from registry.chat.tokens import TextTokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.outlook.training import TrainingCost
    from pipeline.spec.train import TrainSpec
    from pipeline.workspace.workspace import OpenWorkspace

_FORWARD = 0.5  # a forward pass, of a step's time: KL is for LoRA, whose base gets no gradients
_SAMPLE = 16  # instructions that are turned into tokens


@dataclass(frozen=True)
class Rows:
    """Rows that are trained on: for gaps, replayed of datasets, and the base's own text."""

    gap: int
    replayed: int
    own: int


def rows_of(train: TrainSpec, there: int, own: int) -> Rows:
    """Return the rows of a first selection, with so many there for gaps, and so many own texts."""
    replayed = round(train.budget_rows * train.replay)
    return Rows(min(train.budget_rows - replayed - own, there), replayed, own)


def drawn(train: TrainSpec, rows: int, asked: Mapping[str, float]) -> float:
    """Return the tokens of the answers that are drawn to rows for gaps.

    Args:
        train: how many are drawn to one.
        rows: spread evenly over the capabilities.
        asked: capability -> tokens of a question and its answer; 0 where none is generated.
    """
    if not asked:
        return 0.0
    draws = TOGETHER * math.ceil(train.own_answers / TOGETHER)
    return draws * rows * sum(asked.values()) / len(asked)


def own_text_length(ws: OpenWorkspace) -> float:
    """Return the most tokens of a text of the base's own, with what is asked for it."""
    from pipeline.selection.judge.own_text import instructions

    base = ws.spec.train.base
    chat = ws.models.chat(base)
    some = instructions()[:_SAMPLE]
    texts = [chat.context([{"role": "user", "content": one}]) for one in some]
    counts = [len(ids) for ids in TextTokens(chat.tokenizer).wholes(texts)]
    return sum(counts) / len(counts) + most_answer_tokens(ws.models.identity(base).context)


def with_own(trained: TrainingCost, train: TrainSpec, rows: Rows, length: float) -> TrainingCost:
    """Return what training takes with own texts of such a length, and KL's pass over what is kept.

    Args:
        trained: on the other rows.
        train: with the weight of KL.
        rows: that are trained on.
        length: tokens of an own text.
    """
    if not trained.tokens:
        return trained
    own = rows.own * length * train.epochs
    again = rows.replayed * trained.row * train.epochs + own if train.kl else 0.0
    seconds = trained.seconds / trained.tokens * (own + _FORWARD * again)
    return replace(
        trained,
        tokens=round(trained.tokens + own),
        again=round(again),
        seconds=trained.seconds + seconds,
    )
