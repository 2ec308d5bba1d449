"""chat: what a line of a talk means, and questions from a pipe."""

from __future__ import annotations

import os
import select
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.talk.reply import Failed
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.talk.keep import Kept, Kind
    from pipeline.talk.reply import Reply, Said
    from pipeline.talk.talk import Talk
    from registry.errors import ErrorRecord

AT_ONCE = 32
"""Questions of a pipe that are asked at once."""

HELP = """\
/row NAME [= ANSWER]   keep the answer, or the right one, as a row of a dataset, to train on
/item NAME [= ANSWER]  keep it as an item of a capability or guard, to measure by
                       (without a name: as the last time; with two models, 2 behind the name
                       keeps the second one's answer)
/new                   begin again, with nothing said
/quit                  leave, as Ctrl-D does; Ctrl-C stops an answer"""

_KEPT: dict[str, Kind] = {"/row": "row", "/r": "row", "/item": "item", "/i": "item"}


@dataclass
class Commands:
    """What is typed beside questions.

    Attributes:
        talk: what is talked about.
        last: kind -> the name by which something was kept last.
    """

    talk: Talk
    last: dict[Kind, str] = field(default_factory=dict)

    def run(self, line: str) -> Kept | str | Literal[False]:
        """Do what a line that begins with / says; return what to show, or False to leave.

        Raises:
            UserError: no such command, or it can't be done.
        """
        word, _, rest = line.strip().partition(" ")
        if word in _KEPT:
            return self._keep(_KEPT[word], rest)
        if word == "/new":
            self.talk.forget()
            return "nothing was said"
        if word == "/help":
            return HELP
        if word == "/quit":
            return False
        raise UserError(
            f"no command is called '{word}'", expected="/row, /item, /new, /help, /quit"
        )

    def _keep(self, kind: Kind, rest: str) -> Kept:
        left, corrected, answer = rest.partition("=")
        words = left.split()
        sides = len(self.talk.sides)
        side = 0
        if words and words[-1].isdigit() and sides > 1 and 1 <= int(words[-1]) <= sides:
            side = int(words.pop()) - 1
        name = words[0] if words else self.last.get(kind)
        if name is None or len(words) > 1:
            wanted = "a dataset" if kind == "row" else "a capability or guard"
            raise UserError(f"/{kind} wants the name of {wanted}", expected=f"/{kind} NAME")
        kept = self.talk.keep(kind, name, side=side, answer=answer.strip() if corrected else None)
        self.last[kind] = name
        return kept


@dataclass(frozen=True)
class Line:
    """A question of a pipe with its answers, or why it has none.

    Attributes:
        prompt: the question.
        answers: of each model, in their order; not all of them failed.
        error: why there are none.
        why: the same in a line for people.
    """

    prompt: str
    answers: tuple[Said | Failed, ...] = ()
    error: ErrorRecord | None = None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as programs read it: what came of it, and nothing beside."""
        if self.error is not None:
            return {"prompt": self.prompt, "error": self.error}
        return {"prompt": self.prompt, "answers": self.answers}


class Lines:
    """The lines of a file or pipe, as far as they have come.

    Args:
        descriptor: of the open file.

    Attributes:
        is_over: whether there are no more.
    """

    def __init__(self, descriptor: int) -> None:
        """See the class."""
        self._descriptor = descriptor
        self._rest = b""
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether there are no more."""
        return self._over and not self._rest

    def take(self, *, wait: bool) -> bytes | None:
        """Return the next line; None where none has come and nobody waits, or none is left."""
        while b"\n" not in self._rest and not self._over:
            if not wait and not select.select([self._descriptor], [], [], 0)[0]:
                return None
            part = os.read(self._descriptor, 1 << 16)
            self._rest += part
            self._over = not part
        if self.is_over:
            return None
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def answered(talk: Talk, lines: Lines) -> Iterator[Line]:
    """Yield the answers to questions that have nothing to do with each other, in their order.

    Many are asked at once, and none waits for one that hasn't come. A question that can't be
    answered has its error in its place.

    Args:
        talk: who is asked.
        lines: a question each; blank ones are passed over.
    """
    running: deque[tuple[str, list[Reply] | UserError]] = deque()
    while running or not lines.is_over:
        while len(running) < AT_ONCE:
            line = lines.take(wait=not running)
            if line is None:
                break
            if line.strip():
                running.append(_asked(talk, line.rstrip(b"\r")))
        if running:
            yield _ended(*running.popleft())


def _asked(talk: Talk, line: bytes) -> tuple[str, list[Reply] | UserError]:
    question = line.decode("utf-8", "replace")
    try:
        line.decode("utf-8")
        return question, talk.ask_apart(question)
    except UnicodeDecodeError as error:
        return question, UserError(f"invalid UTF-8 at byte {error.start}", where="stdin")
    except UserError as error:
        return question, error


def _ended(question: str, replies: list[Reply] | UserError) -> Line:
    if isinstance(replies, UserError):
        return Line(question, error=replies.record(), why=str(replies))
    done = tuple(reply.outcome() for reply in replies)
    failed = [one.error for one in done if isinstance(one, Failed)]
    if len(failed) == len(done):
        return Line(question, error=failed[0].record(), why=str(failed[0]))
    return Line(question, done)
