"""Tokenization of rows: tokens and labels, with every check that must hold before the first step.

A label is the token itself where it is trained (assistant turns with their end-of-turn token) and
-100 elsewhere. Nothing is ever cut: a row that doesn't fit the base is a reject, with its reason.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.training.examples.spans import (
    EndTokens,
    RenderedRow,
    RowRejectedError,
    Span,
    end_tokens,
    render_row,
)
from registry.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from registry.models.load import LoadedModel

IGNORED = -100
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One conversation to train on, already rendered through its capability's prompt.

    Attributes:
        uid: the row's `row_uid`.
        messages: role, content and what else a template may read; an assistant message with
            `train: false` is context only. One message of role `text` is trained as it is.
        tools: JSON schemas of the tools in reach, or None.
        capability: what it is trained for, or the name of what it keeps.
    """

    uid: int
    messages: tuple[dict[str, Any], ...]
    tools: list[dict[str, Any]] | None
    capability: str


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """Tokens of a row: `input_ids` and `labels` are int32 arrays of one length T."""

    uid: int
    input_ids: np.ndarray
    labels: np.ndarray

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


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows to train on, in the order given, and those that were refused."""

    rows: tuple[EncodedRow, ...]
    rejects: tuple[RejectedRow, ...] = field(default=())


def label_mask(loaded: LoadedModel, row: TrainingRow) -> EncodedRow:
    """Encode one row for a base.

    Raises:
        RowRejectedError: the row can't be trained on with this base.
    """
    outcome = next(_encode(loaded, [row]))
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
    if not rows:
        raise DataError("there are no rows to train on", fix="raise budget_rows or widen the pool")
    encoded: list[EncodedRow] = []
    rejects: list[RejectedRow] = []
    for row, outcome in zip(rows, _encode(loaded, rows), strict=True):
        if isinstance(outcome, RowRejectedError):
            rejects.append(RejectedRow(uid=row.uid, base=loaded.identity.name, reason=str(outcome)))
        else:
            encoded.append(outcome)
    if not encoded or len(rejects) > allow_rejects * len(rows):
        first = "; ".join(f"row {reject.uid}: {reject.reason}" for reject in rejects[:3])
        raise DataError(
            f"{len(rejects)} of {len(rows)} rows can't be trained on with base "
            f"'{loaded.identity.name}' ({first})",
            expected=f"at most {allow_rejects:.1%}",
            fix="shorten or drop them, or raise train.allow_rejects",
        )
    return EncodedRows(rows=tuple(encoded), rejects=tuple(rejects))


def _encode(
    loaded: LoadedModel, rows: Sequence[TrainingRow]
) -> Iterator[EncodedRow | RowRejectedError]:
    """Encode in chunks: one call of the tokenizer is far cheaper than one a row."""
    if not loaded.tokenizer.is_fast:
        raise ModelError(
            f"base '{loaded.identity.name}' has a tokenizer without character offsets",
            expected="a fast tokenizer (tokenizer.json)",
        )
    ends = end_tokens(loaded)
    for begin in range(0, len(rows), _CHUNK):
        chunk = rows[begin : begin + _CHUNK]
        rendered = [_render(loaded, row, ends) for row in chunk]
        encodings = _tokenize(loaded, [r.text for r in rendered if isinstance(r, RenderedRow)])
        for row, text in zip(chunk, rendered, strict=True):
            if isinstance(text, RowRejectedError):
                yield text
            else:
                yield _label(loaded, row, text, next(encodings), ends)


def _render(
    loaded: LoadedModel, row: TrainingRow, ends: EndTokens
) -> RenderedRow | RowRejectedError:
    if [message["role"] for message in row.messages] == ["text"]:
        text = str(row.messages[0]["content"]) + str(loaded.tokenizer.eos_token or "")
        return RenderedRow(text=text, spans=(Span(0, len(text)),))
    try:
        return render_row(loaded, row.messages, row.tools, ends)
    except RowRejectedError as error:
        return error


@dataclass(frozen=True, slots=True)
class _Encoding:
    ids: list[int]
    offsets: list[tuple[int, int]]


def _tokenize(loaded: LoadedModel, texts: list[str]) -> Iterator[_Encoding]:
    """Encode as the evals do: a text that begins with the first token's text gets no other one."""
    tokenizer = loaded.tokenizer
    lead = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    lead_text = "" if lead is None else str(tokenizer.decode(lead))
    led = [bool(lead_text) and text.startswith(lead_text) for text in texts]
    encoded = {
        has_lead: _encodings(
            tokenizer, [t for t, here in zip(texts, led, strict=True) if here == has_lead], has_lead
        )
        for has_lead in set(led)
    }
    for has_lead in led:
        yield next(encoded[has_lead])


def _encodings(tokenizer: Any, texts: list[str], has_lead: bool) -> Iterator[_Encoding]:  # noqa: FBT001
    batch: Mapping[str, Any] = tokenizer(
        texts,
        add_special_tokens=not has_lead,
        return_offsets_mapping=True,
        return_attention_mask=False,
        truncation=False,
        verbose=False,
    )
    for ids, offsets in zip(batch["input_ids"], batch["offset_mapping"], strict=True):
        yield _Encoding(ids, offsets)


def _label(
    loaded: LoadedModel, row: TrainingRow, text: RenderedRow, encoding: _Encoding, ends: EndTokens
) -> EncodedRow | RowRejectedError:
    import numpy as np

    ids = np.array(encoding.ids, dtype=np.int32)
    if len(ids) > loaded.context:
        return RowRejectedError(f"{len(ids)} tokens, over the context of {loaded.context}")
    labels = np.full_like(ids, IGNORED)
    starts, stops = np.array(encoding.offsets).T
    ended = False
    for span in text.spans:
        first, last = _token_range(starts, stops, span)
        answer = encoding.ids[first:last]
        labels[first:last] = answer
        has_end = bool(answer) and answer[-1] in ends.ids
        ended = ended or has_end
        if len(answer) <= has_end or not _answer_text(text.text[span.start : span.end], ends):
            return RowRejectedError("an answer is empty")
        if not same_text(_decode(loaded, answer), text.text[span.start : span.end]):
            return RowRejectedError("the tokenizer does not give an answer back as it was")
    # Nothing comes before the first token that could predict it.
    labels[:1] = IGNORED
    if not (labels != IGNORED).any():
        return RowRejectedError("no token would be trained")
    if not ended:
        return RowRejectedError("no answer ends with an end-of-turn token")
    return EncodedRow(uid=row.uid, input_ids=ids, labels=labels)


def _token_range(starts: np.ndarray, stops: np.ndarray, span: Span) -> tuple[int, int]:
    """Tokens [first, last) that hold the span's characters.

    Whitespace tokens may have empty offsets, so the range is everything between its two ends.
    """
    import numpy as np

    first = int(np.searchsorted(stops, span.start, side="right"))
    last = int(np.searchsorted(starts, span.end, side="left"))
    return first, max(first, last)


def _decode(loaded: LoadedModel, ids: list[int]) -> str:
    return str(
        loaded.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def _answer_text(text: str, ends: EndTokens) -> str:
    for end in ends.texts:
        text = text.removesuffix(end)
    return text.strip()


def same_text(decoded: str, text: str) -> bool:
    """Whether they are equal up to Unicode composition and spaces, which some tokenizers change."""

    def plain(value: str) -> str:
        return "".join(unicodedata.normalize("NFKC", value).split())

    return plain(decoded) == plain(text)
