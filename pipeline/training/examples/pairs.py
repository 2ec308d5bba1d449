"""Tokenization of preferences: two answers to one question, or one answer and a verdict on it.

Each answer becomes a row as any other, encoded by the same rules, with labels on that answer alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.training.examples.encode import (
    IGNORED,
    EncodedRow,
    RejectedRow,
    RowRejectedError,
    TrainingRow,
    check_rejects,
    encode_each,
    rejected,
)
from pipeline.training.examples.packing import Family, families

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    where: str = ""


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """A conversation whose last answer is good or bad; messages are those of `TrainingRow`."""

    uid: int
    messages: tuple[dict[str, Any], ...]
    good: bool
    tools: list[dict[str, Any]] | None
    capability: str
    where: str = ""


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
    for row, better, worse in zip(rows, outcomes, outcomes, strict=True):
        if isinstance(better, RowRejectedError):
            rejects.append(rejected(loaded, row, f"chosen: {better}"))
        elif isinstance(worse, RowRejectedError):
            rejects.append(rejected(loaded, row, f"rejected: {worse}"))
        elif np.array_equal(better.input_ids, worse.input_ids):
            rejects.append(rejected(loaded, row, "both answers are the same tokens"))
        else:
            pairs.append(EncodedPair(row.uid, better, worse))
    check_rejects(loaded, len(rows), rejects, allow_rejects)
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
            rejects.append(rejected(loaded, row, str(outcome)))
        else:
            encoded.append(EncodedFeedback(row.uid, outcome, row.good))
    check_rejects(loaded, len(rows), rejects, allow_rejects)
    return tuple(encoded), tuple(rejects)


def _encode(
    loaded: LoadedModel, rows: Sequence[TrainingRow]
) -> Iterator[EncodedRow | RowRejectedError]:
    """Encode rows of which each has to be one example."""
    for outcome in encode_each(loaded, rows):
        if isinstance(outcome, RowRejectedError) or len(outcome) == 1:
            yield outcome if isinstance(outcome, RowRejectedError) else outcome[0]
        else:
            yield RowRejectedError(
                "an answer of several turns, which the chat template writes otherwise once the "
                "conversation goes on, can't be compared as one"
            )


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
    better, worse = (_answered(row, row.messages, answer) for answer in answers)
    return better, worse


def _answered(
    row: PreferenceRow | FeedbackRow,
    question: Sequence[dict[str, Any]],
    answer: Sequence[dict[str, Any]],
) -> TrainingRow:
    """The conversation in which only `answer` is trained."""
    context = (
        {**turn, "train": False} if turn["role"] == "assistant" else turn for turn in question
    )
    return TrainingRow(row.uid, (*context, *answer), row.tools, row.capability, row.where)
