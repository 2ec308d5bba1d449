"""A talk with one model, or with two that are asked the same: turns, answers, what they took."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pipeline.talk.asking import Asking, asking
from pipeline.talk.keep import Kept, Kind, keep
from pipeline.talk.voice import Room, Voice
from pipeline.talk.who import Talker, talker
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evals.engine.live.ask import Ask, Finish, Piece, Stream
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

ANSWER_TOKENS = 512
"""The longest answer where nobody says otherwise, in tokens."""


@dataclass(frozen=True)
class Drawing:
    """How answers are chosen; see `Ask`."""

    limit: int = ANSWER_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


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
            UserError: it failed; the talk is what it was before the question.
        """
        side, done = self.side, self.stream.wait()
        said = _said(side, done)
        asked = {"role": "user", "content": self._question}
        earlier = [turn for one in side.exchanges for turn in (*one.turns[-1:], _spoken(one.said))]
        side.exchanges.append(Exchange((*earlier, asked), self._question, said))
        side.asked += [self._last, _spoken(said)]
        return said


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


class Talk:
    """A talk in a workspace; close it to let go of the models.

    Attributes:
        sides: who is asked: one model, or two.
        drawing: how answers are chosen.
        asking: the prompt that is applied to what is said.
    """

    def __init__(self, ws: OpenWorkspace, ui: Ui, room: Room, sides: Sequence[Side]) -> None:
        """See `open_talk`."""
        self._ws = ws
        self._ui = ui
        self.sides = tuple(sides)
        self.drawing = Drawing()
        self.asking: Asking | None = None
        self._room = room

    def ask(
        self, text: str, told: Callable[[int, Piece | Finish], None] | None = None
    ) -> list[Reply]:
        """Ask all sides; each answers by itself.

        Args:
            text: what is said.
            told: is called with a side's place and each part of its answer, see `Stream`.

        Raises:
            UserError: nothing is said, a template refuses it, or it is longer than a context.
        """
        if not text.strip():
            raise UserError("nothing is asked", expected="a text")
        asks = [self._ask(side, text) for side in self.sides]
        return [
            Reply(
                side,
                text,
                last,
                side.voice.ask(ask, side.who, None if told is None else partial(told, place)),
            )
            for place, (side, (ask, last)) in enumerate(zip(self.sides, asks, strict=True))
        ]

    def ask_apart(self, text: str) -> list[Reply]:
        """Ask all sides a question that has nothing to do with what was said before.

        Raises:
            UserError: as `ask`.
        """
        fresh = Talk(
            self._ws, self._ui, self._room, [Side(side.who, side.voice) for side in self.sides]
        )
        fresh.drawing, fresh.asking = self.drawing, self.asking
        return fresh.ask(text)

    def keep(self, kind: Kind, name: str, *, side: int = 0, answer: str | None = None) -> Kept:
        """Keep the last answer of a side as a row or an item, see `keep`.

        Args:
            kind: what it is kept as.
            name: of the dataset for a row, of the capability or guard for an item.
            side: whose answer.
            answer: the right one, where the model's isn't.

        Raises:
            UserError: nothing was answered yet, or as `keep`.
        """
        one = self.sides[side]
        if not one.exchanges:
            raise UserError("nothing was answered yet", fix="ask something first")
        last = one.exchanges[-1]
        who = one.who.name if one.who.id is None else f"{one.who.name} {one.who.id[:12]}"
        source = f"chat with {who}, {datetime.now(tz=UTC).date().isoformat()}"
        said = {"role": "assistant", "content": last.said.text if answer is None else answer}
        source += "" if answer is None else ", answer corrected"
        return keep(self._ws, self._ui, kind, name, (*last.turns, said), source)

    def forget(self) -> None:
        """Begin again: nothing was said."""
        for side in self.sides:
            side.asked.clear()
            side.exchanges.clear()

    def _ask(self, side: Side, text: str) -> tuple[Ask, dict[str, Any]]:
        """Return what asks a side, and the turn that does it."""
        from evals.engine.live.ask import Ask

        if self.asking is None:
            turns = [{"role": "user", "content": text}]
        else:
            turns = self.asking.turns(text)
        *before, last = turns
        drawing = self.drawing
        ask = Ask(
            side.voice.prompt([*before, *side.asked, last]),
            limit=drawing.limit,
            temperature=drawing.temperature,
            top_p=drawing.top_p,
            seed=drawing.seed,
            stops=side.voice.stops,
            plain=side.voice.plain,
        )
        ask.check()
        return ask, last

    def close(self) -> None:
        """End all answers and let go of the models."""
        self._room.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def open_talk(
    ws: OpenWorkspace,
    ui: Ui,
    model: str | None = None,
    *,
    against: str | None = None,
    prompt: str | None = None,
    capability: str | None = None,
    drawing: Drawing | None = None,
) -> Talk:
    """Load who is to be talked to.

    Args:
        ws: the workspace.
        ui: is told what is loaded.
        model: a base, an alias, or the id of an adapter or merged model; by default the champion,
            and the base that is trained where there is none.
        against: another one, who is asked the same.
        prompt: one of those that the gap measured, applied to what is said.
        capability: whose prompt.
        drawing: how answers are chosen; by default the likeliest token each time.

    Raises:
        UserError: nobody has that name, there is no such prompt, or a model can't be loaded.
    """
    talkers = [talker(ws, model)]
    if against is not None:
        talkers.append(talker(ws, against))
    applied = asking(ws, ui, prompt, capability)
    room = Room(ws, ui)
    try:
        talk = Talk(ws, ui, room, [Side(who, room.ready(who)) for who in talkers])
    except BaseException:
        room.close()
        raise
    talk.asking = applied
    talk.drawing = drawing or Drawing()
    return talk
