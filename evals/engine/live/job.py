"""One answer that is being written: its tokens, its draws, its text, its end."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evals.engine.live.ask import Finish, Piece

if TYPE_CHECKING:
    from pathlib import Path

    from evals.engine.live.ask import Reason, Stream, Token
    from evals.engine.live.text import AnswerText

AHEAD = 256
"""Tokens of an answer for which room is made at first: most end long before their limit."""


@dataclass(eq=False)
class LiveJob:
    """An ask on its way.

    Attributes:
        stream: whom its pieces are told.
        text: of the answer.
        ends: tokens that end it.
        limit: the most tokens that it may have.
        prompt: its tokens.
        answer: those chosen so far.
        draws: random numbers in [0, 1), one for each drawn token.
        echoed: the prompt's tokens have been told.
    """

    stream: Stream
    text: AnswerText
    ends: frozenset[int]
    limit: int
    prompt: list[int] = field(init=False)
    answer: list[int] = field(default_factory=list, init=False)
    draws: np.random.Generator = field(init=False)
    echoed: bool = field(default=False, init=False)
    _first_s: float | None = field(default=None, init=False)
    # Tokens whose text isn't all shown, with how many characters have to be.
    _untold: deque[tuple[int, Token]] = field(default_factory=deque, init=False)
    _shown: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Take the prompt, and the random numbers of the seed."""
        self.prompt = list(self.stream.ask.prompt)
        seed = self.stream.ask.seed
        self.draws = np.random.default_rng(None if seed is None else seed % 2**64)

    @property
    def key(self) -> tuple[Path | None, float]:
        """Which model answers: an adapter and its scale."""
        return self.stream.ask.adapter, self.stream.ask.scale

    @property
    def echoes(self) -> bool:
        """Whether the prompt's tokens are still to be told."""
        return self.stream.ask.echo and not self.echoed

    @property
    def read(self) -> int:
        """How many tokens there are to read."""
        return len(self.prompt) + len(self.answer)

    @property
    def room(self) -> int:
        """How many tokens it needs room for, as far as can be said."""
        return min(len(self.prompt) + self.limit, self.read + AHEAD)

    def take(self, token: Token) -> bool:
        """Append a token and tell what can be shown; whether that ends the answer."""
        if self._first_s is None:
            self._first_s = time.monotonic() - self.stream.asked
        self.answer.append(token.id)
        if token.id in self.ends:
            if self.stream.ask.echo:  # whoever counts tokens counts on the last one
                self._untold.append((self.text.behind, token))
            return self.end("stop")
        shown = self.text.add(token.id)
        self._untold.append((self.text.behind, token))
        if self.text.stopped:
            self._tell(shown)
            return self.end("stop")
        if shown:
            self._tell(shown)
        return len(self.answer) >= self.limit and self.end("length")

    def end(self, reason: Reason, error: Exception | None = None) -> bool:
        """Tell what was held back, and the end; always true."""
        rest = "" if self.text.stopped else self.text.end()
        left = tuple(token for _, token in self._untold)
        if rest or (left and not self.text.stopped):
            self.stream.tell(Piece(rest, left))
        self.stream.tell(
            Finish(
                reason,
                self.text.whole,
                len(self.prompt),
                len(self.answer),
                self._first_s,
                time.monotonic() - self.stream.asked,
                error,
            )
        )
        return True

    def _tell(self, text: str) -> None:
        self._shown += len(text)
        whole = []
        while self._untold and self._untold[0][0] <= self._shown:
            whole.append(self._untold.popleft()[1])
        if text or whole:
            self.stream.tell(Piece(text, tuple(whole)))
