"""Answers as OpenAI's clients read them: plain dictionaries, whole and as chunks of a stream."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evals.engine.live.ask import Finish, Token

IMPOSSIBLE = -9999.0
"""The log-probability of what can't be, as OpenAI's API writes it."""

_REASONS = {"stop": "stop", "length": "length"}


@dataclass(frozen=True)
class Usage:
    """Tokens of a request: its prompts, each once, and all its answers."""

    prompt: int
    answer: int

    def body(self) -> dict[str, int]:
        """Return it as OpenAI writes it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.answer,
            "total_tokens": self.prompt + self.answer,
        }


@dataclass(frozen=True)
class Shape:
    """How the answers of one request are written.

    Attributes:
        model: the name that the request gave.
        said: the text of a token by its id.
        id: of the request.
        created: seconds since 1970.
    """

    model: str
    said: Callable[[int], str]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    whole_kind = ""
    chunk_kind = ""
    prefix = ""

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """Return the answer to a request that asked for no stream."""
        return {**self._head(self.whole_kind), "choices": list(choices), "usage": usage.body()}

    def chunk(
        self, choices: Sequence[dict[str, Any]], usage: Usage | None = None
    ) -> dict[str, Any]:
        """Return one event of a stream; the last one may tell the usage, and has no choices."""
        made = {**self._head(self.chunk_kind), "choices": list(choices)}
        return made if usage is None else {**made, "usage": usage.body()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{self.prefix}{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


@dataclass(frozen=True)
class ChatShape(Shape):
    """Of /v1/chat/completions."""

    top: int | None = None

    whole_kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl-"

    def choice(self, index: int, finish: Finish, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return one whole answer."""
        message = {"role": "assistant", "content": finish.text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(tokens),
            "finish_reason": _REASONS[finish.reason],
        }

    def first(self, index: int) -> dict[str, Any] | None:
        """Return what begins an answer's stream."""
        return self._delta(index, {"role": "assistant", "content": ""})

    def part(self, index: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return the next part of an answer."""
        return self._delta(index, {"content": text}, tokens)

    def last(self, index: int, finish: Finish) -> dict[str, Any]:
        """Return the end of an answer."""
        return {**self._delta(index, {}), "finish_reason": _REASONS[finish.reason]}

    def _delta(
        self, index: int, delta: dict[str, Any], tokens: Sequence[Token] = ()
    ) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if tokens else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self.top is None:
            return None
        content = [
            {
                **self._token(token.id, token.logprob),
                "top_logprobs": [self._token(one, logprob) for one, logprob in token.top],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self.said(token)
        return {
            "token": text,
            "logprob": _finite(logprob),
            "bytes": list(text.encode("utf-8", "replace")),
        }


@dataclass(frozen=True)
class TextShape(Shape):
    """Of /v1/completions.

    Attributes:
        echoed: text that stands in front of each answer, by choice; empty where none was asked for.
        offsets: where the next token of each choice begins in its text.
    """

    top: int | None = None
    echoed: tuple[str, ...] = ()
    offsets: dict[int, int] = field(default_factory=dict)

    whole_kind = "text_completion"
    chunk_kind = "text_completion"
    prefix = "cmpl-"

    def choice(self, index: int, finish: Finish, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return one whole answer."""
        made = self._made(index, self._echo(index) + finish.text, tokens)
        return {**made, "finish_reason": _REASONS[finish.reason]}

    def first(self, index: int) -> dict[str, Any] | None:
        """Return what begins an answer's stream: the prompt, if it is echoed."""
        echo = self._echo(index)
        return self._made(index, echo) if echo else None

    def part(self, index: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return the next part of an answer."""
        return self._made(index, text, tokens)

    def last(self, index: int, finish: Finish) -> dict[str, Any]:
        """Return the end of an answer."""
        return {**self._made(index, ""), "finish_reason": _REASONS[finish.reason]}

    def _echo(self, index: int) -> str:
        return self.echoed[index] if self.echoed else ""

    def _made(self, index: int, text: str, tokens: Sequence[Token] = ()) -> dict[str, Any]:
        logprobs = self._logprobs(index, tokens) if tokens else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self.top is None:
            return None
        texts = [self.said(token.id) for token in tokens]
        at = self.offsets.setdefault(index, 0)  # an echoed prompt's tokens are among them
        offsets = []
        for text in texts:
            offsets.append(at)
            at += len(text)
        self.offsets[index] = at
        return {
            "tokens": texts,
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [
                None if token.logprob is None else self._likeliest(token) for token in tokens
            ],
            "text_offset": offsets,
        }

    def _likeliest(self, token: Token) -> dict[str, float | None]:
        """The likeliest ones and, as at OpenAI, the chosen one; of equal texts the likelier."""
        found: dict[str, float | None] = {}
        for one, logprob in (*token.top, (token.id, token.logprob)):
            found.setdefault(self.said(one), _finite(logprob))
        return found


def _finite(logprob: float | None) -> float | None:
    """Return what JSON can say: a token that can't be has no number."""
    return logprob if logprob is None else max(logprob, IMPOSSIBLE)
