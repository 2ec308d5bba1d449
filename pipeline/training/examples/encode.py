"""Tokenization of rows: tokens and labels, with every check that must hold before the first step.

A label is the token itself where it is trained and -100 elsewhere. Each trained turn of the
assistant is what the base writes from the context that asks for it, up to and with the token that
ends its turn (`registry/chat/chat.py` has the rule). Turns whose contexts go on from each other are
one example; where a template writes what was said otherwise once the conversation goes on, each is
an example of its own. Nothing is ever cut: a row that doesn't fit the base is a reject, with its
reason.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.chat.chat import Turn, TurnRefusedError
from registry.chat.tokens import TextTokens
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from registry.chat.chat import Chat
    from registry.models.load import LoadedModel

IGNORED = -100
_CHUNK = 512


class RowRejectedError(DataError):
    """This row can't be trained on with this base; the message is the reason."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One conversation to train on, already rendered through its capability's prompt.

    Attributes:
        uid: the row's `row_uid`.
        messages: role, content and what else a template may read; an assistant message with
            `train: false` is context only. One message of role `text` is trained as it is.
        tools: JSON schemas of the tools in reach, or None.
        capability: what it is trained for, or the name of what it keeps.
        where: its file and line.
        keeps: whether it is replayed: what the base says of it is to be kept.
        cut: whether its last answer goes on where it stops: then no end is trained behind it.
    """

    uid: int
    messages: tuple[dict[str, Any], ...]
    tools: list[dict[str, Any]] | None
    capability: str
    where: str = ""
    keeps: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """Tokens of an example: `input_ids` and `labels` are int32 arrays of one length T.

    A row is one example, or several of one `uid`; `keeps` as of a `TrainingRow`.
    """

    uid: int
    input_ids: np.ndarray
    labels: np.ndarray
    keeps: bool = False

    @property
    def tokens(self) -> int:
        """How many tokens the row has."""
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        """How many of them are trained."""
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that this base can't be trained on, and why."""

    uid: int
    base: str
    reason: str
    where: str = ""

    def __str__(self) -> str:
        """Where it is, and why."""
        return f"{self.where or f'row {self.uid}'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Examples to train on, in the order of their rows, and the rows that were refused."""

    rows: tuple[EncodedRow, ...]
    rejects: tuple[RejectedRow, ...] = field(default=())


def encode_row(loaded: LoadedModel, row: TrainingRow) -> tuple[EncodedRow, ...]:
    """Encode one row for a base: as one example, or as several where its template needs that.

    Raises:
        RowRejectedError: the row can't be trained on with this base.
    """
    outcome = next(encode_each(loaded, [row]))
    if isinstance(outcome, RowRejectedError):
        raise outcome
    return outcome


def encode_rows(
    loaded: LoadedModel, rows: Sequence[TrainingRow], *, allow_rejects: float
) -> EncodedRows:
    """Encode all rows, with the checks that must hold before step one.

    Raises:
        UserError: no rows, none that can be trained on, or more than `allow_rejects` (a share) of
            them can't be; the first reasons are named.
    """
    encoded: list[EncodedRow] = []
    rejects: list[RejectedRow] = []
    for row, outcome in zip(rows, encode_each(loaded, rows), strict=True):
        if isinstance(outcome, RowRejectedError):
            rejects.append(rejected(loaded, row, str(outcome)))
        else:
            encoded += outcome
    check_rejects(loaded, len(rows), rejects, allow_rejects)
    return EncodedRows(rows=tuple(encoded), rejects=tuple(rejects))


def rejected(loaded: LoadedModel, row: Any, reason: str) -> RejectedRow:
    """Return the reject of a row of any objective."""
    return RejectedRow(row.uid, loaded.identity.name, reason, row.where)


def check_rejects(
    loaded: LoadedModel, rows: int, rejects: Sequence[RejectedRow], allowed: float
) -> None:
    """Stop where too many rows of those given can't be trained on; see `encode_rows`."""
    if not rows:
        raise DataError("there are no rows to train on", fix="raise budget_rows or widen the pool")
    if len(rejects) == rows or len(rejects) > allowed * rows:
        raise DataError(
            f"{len(rejects)} of {rows} rows can't be trained on with base "
            f"'{loaded.identity.name}' ({'; '.join(map(str, rejects[:3]))})",
            expected=f"at most {allowed:.1%}" if len(rejects) < rows else "some that can",
            fix="change or drop them"
            + (", or raise train.allow_rejects" if len(rejects) < rows else ""),
        )


def encode_each(
    loaded: LoadedModel, rows: Sequence[TrainingRow]
) -> Iterator[tuple[EncodedRow, ...] | RowRejectedError]:
    """Yield the examples of each row, or why there are none."""
    chat, tokens = loaded.chat, TextTokens(loaded.tokenizer)
    for begin in range(0, len(rows), _CHUNK):
        chunk = rows[begin : begin + _CHUNK]
        shown = [_shown(chat, row) for row in chunk]
        # One call of the tokenizer is far cheaper than one a row.
        turns = [turn for one in shown if not isinstance(one, RowRejectedError) for turn in one]
        pairs = iter(tokens.pairs([t.context for t in turns], [t.target for t in turns]))
        for row, one in zip(chunk, shown, strict=True):
            if isinstance(one, RowRejectedError):
                yield one
                continue
            written = [(turn, *next(pairs)) for turn in one]
            try:
                yield _examples(loaded, chat, row, written)
            except RowRejectedError as error:
                yield error


def turns_of(chat: Chat, row: TrainingRow) -> tuple[Turn, ...]:
    """Return the trained turns of a row as text.

    Raises:
        TurnRefusedError: one of them doesn't fit the base's chat template.
    """
    if is_text(row):
        # Text that is in some chat format already has its end.
        text = str(row.messages[0]["content"])
        ends = text.rstrip().endswith(chat.texts_of(chat.specials))
        return (Turn("", text if ends else text + str(chat.tokenizer.eos_token or "")),)
    heard = [{k: v for k, v in m.items() if k != "train"} for m in row.messages]
    trained = [
        number
        for number, message in enumerate(row.messages)
        if message["role"] == "assistant" and message.get("train") is not False
    ]
    if not trained:
        raise TurnRefusedError("no assistant turn to train on")
    return tuple(chat.turn(heard, number, row.tools) for number in trained)


def is_text(row: TrainingRow) -> bool:
    """Whether a row is a text, not a conversation."""
    return [message["role"] for message in row.messages] == ["text"]


def _shown(chat: Chat, row: TrainingRow) -> tuple[Turn, ...] | RowRejectedError:
    try:
        return turns_of(chat, row)
    except TurnRefusedError as error:
        return RowRejectedError(error.what, fix=error.fix)


def _examples(
    loaded: LoadedModel,
    chat: Chat,
    row: TrainingRow,
    written: Sequence[tuple[Turn, list[int], list[int]]],
) -> tuple[EncodedRow, ...]:
    """Label each turn, and let one that goes on from the one before be one example with it."""
    import numpy as np

    made: list[tuple[list[int], list[int]]] = []
    for turn, context, target in written:
        answer = target if is_text(row) else _ended(chat, turn, target)
        ids, labels = context + answer, [IGNORED] * len(context) + answer
        if row.cut and turn is written[-1][0]:
            labels = _without_end(chat, labels)
        if len(ids) > loaded.context:
            raise RowRejectedError(f"{len(ids)} tokens, over the context of {loaded.context}")
        if made and context[: len(made[-1][0])] == made[-1][0]:
            _, before = made.pop()
            labels[: len(before)] = before
        labels[:1] = [IGNORED]  # nothing comes before the first token that could predict it
        if all(label == IGNORED for label in labels):
            raise RowRejectedError("no token would be trained")
        made.append((ids, labels))
    return tuple(
        EncodedRow(
            row.uid,
            np.array(ids, dtype=np.int32),
            np.array(labels, dtype=np.int32),
            keeps=row.keeps,
        )
        for ids, labels in made
    )


def _without_end(chat: Chat, labels: list[int]) -> list[int]:
    """Return labels of an answer that was cut: what ends the turn behind it is not trained."""
    end = len(labels)
    while end and (
        labels[end - 1] in chat.specials or not decoded(chat, [labels[end - 1]]).strip()
    ):
        end -= 1
    return [*labels[:end], *[IGNORED] * (len(labels) - end)]


def _says_nothing(chat: Chat, token: int) -> bool:
    return token in chat.specials or not decoded(chat, [token]).strip()


def _ended(chat: Chat, turn: Turn, target: list[int]) -> list[int]:
    """The tokens of an answer, up to and with the one that ends its turn.

    That is the first at which generation stops; of a base that says of no token in it that it
    stops there, the last special one.

    Raises:
        RowRejectedError: no such token, an answer that the tokenizer doesn't give back, or one that
            goes on behind its end.
    """
    if not same_text(decoded(chat, target), turn.target):
        raise RowRejectedError("the tokenizer does not give an answer back as it was")
    stops = [place for place, token in enumerate(target) if token in chat.stops]
    ends = stops[:1] or [p for p, token in enumerate(target) if token in chat.specials][-1:]
    if not ends:
        raise RowRejectedError("an answer does not end with an end-of-turn token")
    end = ends[0] + 1
    rest = chat.tokenizer.decode(target[end:], skip_special_tokens=True)
    if str(rest).strip():
        shown = decoded(chat, target[end - 1 : end])
        raise RowRejectedError(f"an answer goes on behind {shown}, where generation stops")
    return target[:end]


def decoded(chat: Chat, ids: Sequence[int]) -> str:
    """Return the text of tokens, special ones too."""
    return str(
        chat.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    )


def same_text(read: str, text: str) -> bool:
    """Whether they are equal up to Unicode composition and spaces, which some tokenizers change."""
    return plain_text(read) == plain_text(text)


def plain_text(text: str) -> str:
    """Return a text in one Unicode composition and without spaces."""
    return "".join(unicodedata.normalize("NFKC", text).split())
