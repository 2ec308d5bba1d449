"""A talk that a page has open: what was said and answered, and the question that is on its way.

Whoever asks may go away at any moment, also while a model is loaded: then what is being written is
cancelled, and the talk is free for the next question.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal

from pipeline.talk.reply import Failed, Said
from registry.errors import MachineError, StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from evals.engine.live.ask import Finish, Piece
    from pipeline.site.talks.chosen import Chosen
    from pipeline.talk.keep import Kind
    from pipeline.talk.reply import Reply
    from pipeline.talk.talk import Talk
    from pipeline.talk.who import Talker


@dataclass
class Answer:
    """What one side answers.

    Attributes:
        by: whose it is.
        done: how it ended; None while it is written.
        exchange: its number among the side's answers, which it is kept by; None if it failed.
        kept: what it was kept as: a line, and the address of the version that has it.
    """

    by: str
    done: Said | Failed | None = None
    exchange: int | None = None
    kept: list[tuple[str, str | None]] = field(default_factory=list)


@dataclass
class Turn:
    """A question and its answers, in the order of the sides."""

    number: int
    question: str
    answers: list[Answer]


@dataclass(eq=False)
class Question:
    """One that is on its way: nobody has begun with it, it is asked, answered, or over."""

    text: str
    state: Literal["new", "begun", "asked", "over"] = "new"
    is_left: bool = False
    turn: Turn | None = None
    replies: list[Reply] = field(default_factory=list)


@dataclass(eq=False)
class OpenTalk:
    """A talk of a page.

    Attributes:
        key: what its pages name it by.
        who: who is asked.
        chosen: what was chosen last.
        talk: the talk itself; None until its models are loaded.
        turns: what was said.
        last: kind -> the name by which something was kept last.
        used: when somebody last had to do with it, by the monotonic clock.
    """

    key: str
    who: tuple[Talker, ...]
    chosen: Chosen
    talk: Talk | None = None
    turns: list[Turn] = field(default_factory=list)
    last: dict[Kind, str] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)
    _now: Question | None = None
    _lock: Lock = field(default_factory=Lock)
    _ending: Lock = field(default_factory=Lock)

    @property
    def is_busy(self) -> bool:
        """Whether a question is on its way."""
        return self._now is not None

    def question(self, text: str) -> Question:
        """Take a question; `ask` it, and `leave` it in any case.

        Raises:
            UserError: another one is on its way.
        """
        with self._lock:
            if self._now is not None:
                raise MachineError(
                    "this talk is being answered", fix="wait for the answers, or stop them"
                )
            self._now = Question(text)
            self.used = time.monotonic()
            return self._now

    def ask(
        self,
        question: Question,
        ready: Callable[[], Talk],
        told: Callable[[int, Piece | Finish], None],
    ) -> Turn:
        """Ask it.

        Args:
            question: as `question` gave it.
            ready: returns the talk, its models loaded, which may take long.
            told: is called with a side's place and each part of its answer, see `Stream`.

        Raises:
            UserError: whoever asked has left, a model can't be loaded, or as `Talk.ask`.
        """
        with self._lock:
            _check_waited_for(question)
            question.state = "begun"
        try:
            self.talk = ready()
            with self._lock:
                _check_waited_for(question)
                question.replies = self.talk.ask(question.text, told)
                answers = [Answer(one.side.who.name) for one in question.replies]
                question.turn = Turn(len(self.turns), question.text, answers)
                self.turns.append(question.turn)
                question.state = "asked"
                return question.turn
        except BaseException:
            self._over(question)
            raise

    def end(self, question: Question, side: int) -> Answer:
        """Wait for a side's answer, and make it part of the talk."""
        assert question.turn is not None  # noqa: S101 - it was asked
        answer, reply = question.turn.answers[side], question.replies[side]
        with self._ending:
            if answer.done is None:
                answer.done = _outcome(reply)
                if isinstance(answer.done, Said):
                    answer.exchange = len(reply.side.exchanges) - 1
        return answer

    def leave(self, question: Question) -> None:
        """Cancel what is still written of it; once that has ended the next can be asked."""
        with self._lock:
            question.is_left = True
            state = question.state
        if state == "new":
            self._over(question)
        elif state == "asked":
            if any(one.stream.finish is None for one in question.replies):
                self._cancel(question)
                Thread(target=self._end_all, args=[question], daemon=True).start()
            else:
                self._end_all(question)

    def stop(self) -> None:
        """Cancel what is being written: it ends as far as it came, for whoever has asked."""
        with self._lock:
            if self._now is not None:
                self._cancel(self._now)

    @staticmethod
    def _cancel(question: Question) -> None:
        for one in question.replies:
            one.stream.cancel()

    def _end_all(self, question: Question) -> None:
        for side in range(len(question.replies)):
            self.end(question, side)
        self._over(question)

    def _over(self, question: Question) -> None:
        with self._lock:
            question.state = "over"
            if self._now is question:
                self._now = None
            self.used = time.monotonic()


def _check_waited_for(question: Question) -> None:
    if question.is_left:
        raise StoreRequestError("whoever asked this has gone")


def _outcome(reply: Reply) -> Said | Failed:
    """Return how an answer ended; a fault of one side takes nothing from the other."""
    try:
        return reply.outcome()
    except Exception as error:  # noqa: BLE001 - any architecture may fail in its own way
        said: Any = next(iter(str(error).splitlines()), "")
        fault = f"a fault of ours: {type(error).__name__}: {said}"
        return Failed(reply.side.who.name, MachineError(fault))
