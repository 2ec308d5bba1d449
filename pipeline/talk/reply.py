"""One side of a talk, and its answers: on their way, ended, or failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evals.engine.live.ask import Finish, Stream, Told
    from pipeline.talk.voice import Voice
    from pipeline.talk.who import Talker

_ENDED = {"length": ", at the limit", "cancelled": ", stopped"}


@dataclass(frozen=True)
class Said:
    """An answer that has ended.

    Attributes:
        model: by whom.
        text: the answer, without a thought.
        written: all that was written.
        reason: `stop`, `length` or `cancelled`.
        prompt_tokens: that were read.
        tokens: that were written.
        first_s: seconds from asking to the first token; None if there was none.
        seconds: from asking to the end.
    """

    model: str
    text: str
    written: str
    reason: str
    prompt_tokens: int
    tokens: int
    first_s: float | None
    seconds: float

    @property
    def took(self) -> str:
        """What it took, in words: tokens and time."""
        tokens = "1 token" if self.tokens == 1 else f"{self.tokens:,} tokens"
        ended = _ENDED.get(self.reason, "")
        first = "" if self.first_s is None else f", the first after {self.first_s:.2f} s"
        return f"{tokens} in {self.seconds:.2f} s{first}{ended}; {self.prompt_tokens:,} read"


@dataclass(frozen=True)
class Failed:
    """An answer that did not come.

    Attributes:
        model: by whom.
        error: why.
    """

    model: str
    error: UserError

    def as_json(self) -> dict[str, Any]:
        """Return it as programs read it."""
        return {"model": self.model, "error": self.error.record()}


@dataclass(frozen=True)
class Exchange:
    """What somebody said, and what was answered: what can be kept as a row."""

    turns: tuple[dict[str, Any], ...]
    question: str
    said: Said


@dataclass
class Side:
    """One model's own side of the talk.

    Attributes:
        who: the model.
        voice: that it answers by.
        asked: the turns that it was asked with, and its answers, without the prompt's examples.
        exchanges: each question as it was said, with its answer.
    """

    who: Talker
    voice: Voice
    asked: list[dict[str, Any]] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)


class Reply:
    """An answer on its way; iterate for its texts, then `end` it."""

    def __init__(self, side: Side, question: str, last: dict[str, Any], stream: Stream) -> None:
        """See the class."""
        self.side = side
        self._question = question
        self._last = last
        self.stream = stream

    @classmethod
    def refused(cls, side: Side, question: str, error: UserError, told: Told | None) -> Self:
        """Return the reply of a side that can't be asked this: it has failed already."""
        from evals.engine.live.ask import Ask, Finish, Stream

        stream = Stream(Ask(()), told)
        stream.tell(Finish("failed", "", 0, 0, None, 0.0, error))
        return cls(side, question, {}, stream)

    def __iter__(self) -> Iterator[str]:
        """Yield the text as it comes, special tokens and all.

        Raises:
            UserError: it failed.
        """
        for piece in self.stream:
            if piece.text:
                yield piece.text

    def end(self) -> Said:
        """Wait for its end and make it part of the talk, one that was cancelled as far as it came.

        Raises:
            UserError: it failed; the side is what it was before the question.
        """
        side, done = self.side, self.stream.wait()
        said = _said(side, done)
        asked = {"role": "user", "content": self._question}
        earlier = [turn for one in side.exchanges for turn in (*one.turns[-1:], _spoken(one.said))]
        side.exchanges.append(Exchange((*earlier, asked), self._question, said))
        side.asked += [self._last, _spoken(said)]
        return said

    def outcome(self) -> Said | Failed:
        """As `end`, but a failure is returned: another side may have answered."""
        try:
            return self.end()
        except UserError as error:
            return Failed(self.side.who.name, error)


def _said(side: Side, done: Finish) -> Said:
    text = side.voice.answer_in(done.text)
    return Said(
        side.who.name,
        text,
        done.text,
        done.reason,
        done.prompt_tokens,
        done.tokens,
        done.first_s,
        done.seconds,
    )


def _spoken(said: Said) -> dict[str, Any]:
    return {"role": "assistant", "content": said.text}
