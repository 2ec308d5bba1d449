"""Spans of trained text in a rendered conversation: assistant turns and their ends.

A template that marks assistant text with `{% generation %}` says so itself. For any other, a turn
begins where the generation prompt ends (so that what is trained is what will be asked for) and
ends where the conversation up to and including it ends, found by rendering both prefixes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import DataError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.models.load import LoadedModel

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_NOT_RENDERED = frozenset(("train",))


class RowRejectedError(DataError):
    """This row can't be trained on with this base; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Span:
    """Trained characters [start, end) of a rendered text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row as the text the model reads, and which characters of it are trained."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class EndTokens:
    """The tokens that can end a turn: ids, and their texts, longest first."""

    ids: frozenset[int]
    texts: tuple[str, ...]


def end_tokens(loaded: LoadedModel) -> EndTokens:
    """The base's stop tokens and its other special tokens.

    Templates end a turn with a special token; whether generation stops there is said by the
    tokenizer or by the generation config, and by many bases in only one of the two.
    """
    tokenizer = loaded.tokenizer
    ids = set(tokenizer.all_special_ids)
    ids |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    for config in (loaded.model.config, loaded.model.generation_config):
        stops = getattr(config, "eos_token_id", None)
        ids |= set(stops if isinstance(stops, list) else [stops])
    ids.discard(None)
    texts = {str(tokenizer.convert_ids_to_tokens(i)) for i in ids} - {""}
    return EndTokens(
        ids=frozenset(ids), texts=tuple(sorted(texts, key=lambda text: (-len(text), text)))
    )


def render_row(
    loaded: LoadedModel,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    ends: EndTokens,
) -> RenderedRow:
    """Render a conversation and find its trained characters.

    Args:
        loaded: the base; its template decides.
        messages: role and content; `train: false` keeps an assistant turn out of the loss.
        tools: JSON schemas of the tools in reach.
        ends: of `end_tokens(loaded)`.

    Raises:
        RowRejectedError: the template refuses the row or doesn't show one of its answers.
    """
    turns = _Conversation(loaded, [_clean(message) for message in messages], tools, ends)
    chosen = [
        number
        for number, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("train") is not False
    ]
    if not chosen:
        raise RowRejectedError("no assistant turn to train on")
    full = turns.render(len(messages), generate=False)
    spans = _marked_spans(turns, full, chosen)
    if spans is None:
        spans = _prefix_spans(turns, full, chosen)
    return RenderedRow(text=full, spans=spans)


def _clean(message: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in message.items() if v is not None and k not in _NOT_RENDERED}


@dataclass(frozen=True)
class _Conversation:
    """One conversation and what renders it."""

    loaded: LoadedModel
    messages: list[dict[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None
    ends: EndTokens

    def render(self, count: int, *, generate: bool) -> str:
        try:
            return self.loaded.chat.render(
                self.messages[:count], tools=self.tools, add_generation_prompt=generate
            )
        except UserError as error:
            raise RowRejectedError(error.what) from error


def _marked_spans(
    turns: _Conversation, full: str, chosen: Sequence[int]
) -> tuple[Span, ...] | None:
    """The spans that the template's own generation marks give; None where it has none."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    tokenizer = turns.loaded.tokenizer
    template = tokenizer.chat_template
    if not isinstance(template, str) or not _GENERATION.search(template):
        return None
    try:
        texts, indices = render_jinja_template(
            [turns.messages],
            tools=list(turns.tools) if turns.tools else None,
            chat_template=template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    except TemplateError:
        return None
    answers = [n for n, message in enumerate(turns.messages) if message["role"] == "assistant"]
    if texts[0] != full or len(indices[0]) != len(answers):
        return None
    return tuple(
        Span(start, _with_end_token(full, end, turns.ends))
        for number, (start, end) in zip(answers, indices[0], strict=True)
        if number in chosen
    )


def _with_end_token(full: str, end: int, ends: EndTokens) -> int:
    """Take in an end-of-turn token that stands right behind a marked answer."""
    if full[:end].rstrip().endswith(ends.texts):
        return end
    return end + next((len(text) for text in ends.texts if full.startswith(text, end)), 0)


def _prefix_spans(turns: _Conversation, full: str, chosen: Sequence[int]) -> tuple[Span, ...]:
    spans: list[Span] = []
    cursor = 0
    for number in chosen:
        start = _turn_start(turns, full, number, cursor)
        cursor = _turn_end(turns, full, number, start)
        spans.append(Span(start, cursor))
    return tuple(spans)


def _turn_start(turns: _Conversation, full: str, number: int, cursor: int) -> int:
    prompt = turns.render(number, generate=True) if number else ""
    if full.startswith(prompt):
        return len(prompt)
    # The template shows the history otherwise once the conversation goes on.
    content = turns.messages[number].get("content")
    found = full.find(content.strip(), cursor) if isinstance(content, str) else -1
    if found < 0:
        raise RowRejectedError(f"the chat template does not show answer {number + 1} as it is")
    return found


def _turn_end(turns: _Conversation, full: str, number: int, start: int) -> int:
    upto = turns.render(number + 1, generate=False)
    if full.startswith(upto):
        # Templates put a line break behind the end token: it belongs to the next turn.
        return max(start, len(upto.rstrip()))
    hits = ((full.find(text, start), text) for text in turns.ends.texts)
    found = [(at, -len(text)) for at, text in hits if at >= 0]
    content = str(turns.messages[number].get("content") or "")
    shown = start + len(content) if full.startswith(content, start) else -1
    if not found:
        if shown > start:
            return shown
        raise RowRejectedError(f"the end of answer {number + 1} can't be found in the template")
    at, minus = min(found)
    # Without a template, an earlier turn ends with an empty line and no token.
    return shown if start < shown < at else at - minus
