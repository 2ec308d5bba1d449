"""What a live model is asked, and the stream of its answer. Light to import."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Literal, TypeAlias

from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

Reason = Literal["stop", "length", "cancelled", "failed"]
HOTTEST = 2.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and how it is to be answered.

    Attributes:
        prompt: its tokens, with the special ones that it needs.
        adapter: a folder with a PEFT adapter or changed tensors; None: the base alone.
        scale: of the adapter.
        limit: the most tokens of the answer; None, or more than fit: up to the context's end.
        temperature: 0 takes the likeliest token, 1 draws as the model finds tokens likely.
        top_p: draws among the likeliest tokens that make up this share.
        seed: the same draws again, whatever else is asked meanwhile; None: others each time.
        stops: texts that end the answer, and are no part of it.
        logprobs: so many of the likeliest tokens are told at each place, beside the chosen one;
            None: no log-probabilities.
        echo: the prompt's tokens are told first, as `logprobs` has them; the first has no number.
            The token that ends the answer is told too.
        plain: leave special tokens out of the text.
    """

    prompt: tuple[int, ...]
    adapter: Path | None = None
    scale: float = 1.0
    limit: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    plain: bool = True

    def check(self) -> None:
        """Refuse what no model could do.

        Raises:
            UserError: a value out of its range, which is named.
        """
        ranges = {
            "temperature": (self.temperature, 0 <= self.temperature <= HOTTEST, "0 to 2"),
            "top_p": (self.top_p, 0 < self.top_p <= 1, "above 0, at most 1"),
            "limit": (self.limit, self.limit is None or self.limit > 0, "at least 1 token"),
            "logprobs": (self.logprobs, self.logprobs is None or self.logprobs >= 0, "0 or more"),
            "prompt": ("no token", bool(self.prompt), "at least one"),
        }
        for name, (given, right, expected) in ranges.items():
            if not right:
                raise UserError(f"{name} is {given}", expected=expected, given=str(given))


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer.

    Attributes:
        id: which one.
        logprob: its natural log-probability, before any temperature; None if not asked for.
        top: the likeliest ones at its place with theirs, the likeliest first.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer: whole characters, and the tokens that they were read from."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of an answer.

    Attributes:
        reason: `stop` at an end token or a stop text, `length` at the limit, `cancelled`, or
            `failed`, and then `error` says why.
        text: the whole answer.
        prompt_tokens: of the prompt.
        tokens: that were generated, the one that ended it included.
        first_s: seconds from asking to the first token; None if there was none.
        seconds: from asking to the end.
        error: why it failed.
    """

    reason: Reason
    text: str
    prompt_tokens: int
    tokens: int
    first_s: float | None
    seconds: float
    error: Exception | None = None


Told: TypeAlias = "Callable[[Piece | Finish], None]"


@dataclass(eq=False)
class Stream:
    """An answer that is being written.

    Iterate over it for its pieces; whoever gave `told` is called with them instead, and with the
    end, in the model's thread: it has to be quick and must not raise.

    Attributes:
        ask: what was asked.
        asked: when, by the monotonic clock.
        finish: how it ended; None until then.
    """

    ask: Ask
    told: Told | None = None
    asked: float = field(default_factory=time.monotonic)
    finish: Finish | None = None
    _events: SimpleQueue[Piece | Finish] = field(default_factory=SimpleQueue)
    _cancelled: Event = field(default_factory=Event)
    _ended: Event = field(default_factory=Event)

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces as they come.

        Raises:
            UserError: it failed for a reason that is to be told.
        """
        while True:
            event = self._events.get()
            if isinstance(event, Finish):
                self._events.put(event)  # whoever iterates again sees the end
                if event.error is not None:
                    raise event.error
                return
            yield event

    def wait(self) -> Finish:
        """Let it be written to its end.

        Raises:
            UserError: it failed for a reason that is to be told.
        """
        self._ended.wait()
        assert self.finish is not None  # noqa: S101 - set before the event is
        if self.finish.error is not None:
            raise self.finish.error
        return self.finish

    def cancel(self) -> None:
        """End it before its next token; what was written is kept."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants it any more."""
        return self._cancelled.is_set()

    def tell(self, event: Piece | Finish) -> None:
        """Pass on what the model's thread made."""
        if isinstance(event, Finish):
            self.finish = event
        try:
            (self.told or self._events.put)(event)
        except Exception:
            log.exception("nobody could be told of an answer: it is given up")
            self.cancel()
        if isinstance(event, Finish):
            self._ended.set()
