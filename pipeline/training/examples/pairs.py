"""Tokenization of preferences: two answers to one question, or one answer and a verdict on it.

Each answer becomes a row as any other, encoded by the same rules, with labels on that answer alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.training.examples.encode import IGNORED, EncodedRow, RejectedRow, TrainingRow, _encode
from pipeline.training.examples.packing import Family, families
from pipeline.training.examples.spans import RowRejectedError
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.models.load import LoadedModel


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """A question with a better and a worse answer; messages are those of `TrainingRow`."""

    uid: int
    messages: tuple[dict[str, Any], ...]
    chosen: tuple[dict[str, Any], ...]
    rejected: tuple[dict[str, Any], ...]
    tools: list[dict[str, Any]] | None
    capability: str


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """A conversation whose last answer is good or bad; messages are those of `TrainingRow`."""

    uid: int
    messages: tuple[dict[str, Any], ...]
    good: bool
    tools: list[dict[str, Any]] | None
    capability: str


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPair:
    """Both answers as rows, the question in front of each; only the answers have labels."""

    uid: int
    chosen: EncodedRow
    rejected: EncodedRow

    @property
    def tokens(self) -> int:
        """How many tokens it takes in a batch at most, its question counted once where shared."""
        shared = families((self.chosen, self.rejected))
        both = self.chosen.tokens + self.rejected.tokens
        return both - question_tokens(self.chosen) if shared else both


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFeedback:
    """The conversation as a row with labels on its last answer, and the verdict on that."""

    uid: int
    row: EncodedRow
    good: bool


def encode_pairs(
    loaded: LoadedModel, rows: Sequence[PreferenceRow], *, allow_rejects: float
) -> tuple[tuple[EncodedPair, ...], tuple[RejectedRow, ...]]:
    """Encode preference rows, with the checks that must hold before step one.

    Returns:
        The pairs in the order given, and the rows that this base can't be trained on.

    Raises:
        UserError: as `encode.encode_rows`.
    """
    pairs: list[EncodedPair] = []
    rejects: list[RejectedRow] = []
    outcomes = _encode(loaded, [side for row in rows for side in _sides(row)])
    for row, chosen, rejected in zip(rows, outcomes, outcomes, strict=True):
        if isinstance(chosen, RowRejectedError):
            rejects.append(_reject(loaded, row.uid, f"chosen: {chosen}"))
        elif isinstance(rejected, RowRejectedError):
            rejects.append(_reject(loaded, row.uid, f"rejected: {rejected}"))
        elif np.array_equal(chosen.input_ids, rejected.input_ids):
            rejects.append(_reject(loaded, row.uid, "both answers are the same tokens"))
        else:
            pairs.append(EncodedPair(row.uid, chosen, rejected))
    _check_rejects(loaded, len(rows), rejects, allow_rejects)
    return tuple(pairs), tuple(rejects)


def encode_feedback(
    loaded: LoadedModel, rows: Sequence[FeedbackRow], *, allow_rejects: float
) -> tuple[tuple[EncodedFeedback, ...], tuple[RejectedRow, ...]]:
    """Encode feedback rows; see `encode_pairs`."""
    encoded: list[EncodedFeedback] = []
    rejects: list[RejectedRow] = []
    judged = [_answered(row, row.messages[:-1], row.messages[-1:]) for row in rows]
    for row, outcome in zip(rows, _encode(loaded, judged), strict=True):
        if isinstance(outcome, RowRejectedError):
            rejects.append(_reject(loaded, row.uid, str(outcome)))
        else:
            encoded.append(EncodedFeedback(row.uid, outcome, row.good))
    _check_rejects(loaded, len(rows), rejects, allow_rejects)
    return tuple(encoded), tuple(rejects)


def mismatched(rows: Sequence[EncodedFeedback], *, context: int) -> list[EncodedRow]:
    """Give each row's question the answer of the row before it, the first one that of the last.

    On these pairs KTO estimates how far the policy is from its reference. They are made of the rows
    of one optimizer step, at least two of them. A pair above `context` tokens is left out.
    """
    found: list[EncodedRow] = []
    for asked, answered in zip(rows, (*rows[-1:], *rows[:-1]), strict=True):
        prompt, answer = question_tokens(asked.row), question_tokens(answered.row)
        ids = np.concatenate([asked.row.input_ids[:prompt], answered.row.input_ids[answer:]])
        labels = np.concatenate([asked.row.labels[:prompt], answered.row.labels[answer:]])
        if len(ids) <= context:
            found.append(EncodedRow(asked.uid, ids, labels))
    return found


def pair_families(pairs: Sequence[EncodedPair]) -> tuple[Family, ...]:
    """Find pairs with one question, for the plan; `EncodedPair.tokens` are its lengths."""
    found = families([pair.chosen for pair in pairs])
    return tuple(
        Family(family.rows, question_tokens(pairs[family.rows[0]].chosen)) for family in found
    )


def question_tokens(row: EncodedRow) -> int:
    """How many tokens stand before the first trained one."""
    return int((row.labels != IGNORED).argmax())


def answered(
    row: TrainingRow | PreferenceRow | FeedbackRow,
) -> tuple[TrainingRow, ...]:
    """Return the conversations that a row is trained on, the better one first."""
    if isinstance(row, PreferenceRow):
        return _sides(row)
    if isinstance(row, FeedbackRow):
        return (_answered(row, row.messages[:-1], row.messages[-1:]),)
    return (row,)


def _sides(row: PreferenceRow) -> tuple[TrainingRow, TrainingRow]:
    answers = row.chosen, row.rejected
    chosen, rejected = (_answered(row, row.messages, answer) for answer in answers)
    return chosen, rejected


def _answered(
    row: PreferenceRow | FeedbackRow,
    question: Sequence[dict[str, Any]],
    answer: Sequence[dict[str, Any]],
) -> TrainingRow:
    """The conversation in which only `answer` is trained."""
    context = (
        {**turn, "train": False} if turn["role"] == "assistant" else turn for turn in question
    )
    return TrainingRow(row.uid, (*context, *answer), row.tools, row.capability)


def _reject(loaded: LoadedModel, uid: int, reason: str) -> RejectedRow:
    return RejectedRow(uid=uid, base=loaded.identity.name, reason=reason)


def _check_rejects(
    loaded: LoadedModel, rows: int, rejects: Sequence[RejectedRow], allowed: float
) -> None:
    if not rows:
        raise DataError("there are no rows to train on", fix="raise budget_rows or widen the pool")
    if len(rejects) == rows or len(rejects) > allowed * rows:
        first = "; ".join(f"row {reject.uid}: {reject.reason}" for reject in rejects[:3])
        raise DataError(
            f"{len(rejects)} of {rows} rows can't be trained on with base "
            f"'{loaded.identity.name}' ({first})",
            expected=f"at most {allowed:.1%}",
            fix="shorten or drop them, or raise train.allow_rejects",
        )
