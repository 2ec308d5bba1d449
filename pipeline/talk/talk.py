"""A talk with one model, or with two that are asked the same: turns, answers, what they took."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pipeline.talk.asking import Asking, asking
from pipeline.talk.keep import Kept, Kind, keep
from pipeline.talk.reply import Reply, Side
from pipeline.talk.voice import Room
from pipeline.talk.who import talker
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evals.engine.live.ask import Ask, Finish, Piece, Told
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
        """Ask all sides; each answers by itself, and one that can't be asked has failed at once.

        Args:
            text: what is said.
            told: is called with a side's place and each part of its answer, see `Stream`.

        Raises:
            UserError: nothing is said, or no side can be asked: its template refuses it, or it is
                longer than a context.
        """
        if not text.strip():
            raise UserError("nothing is asked", expected="a text")
        tellings = [None if told is None else partial(told, n) for n in range(len(self.sides))]
        begun = [
            self._begun(side, text, telling)
            for side, telling in zip(self.sides, tellings, strict=True)
        ]
        refusals = [one for one in begun if isinstance(one, UserError)]
        if len(refusals) == len(begun):
            raise refusals[0]
        return [
            Reply.refused(side, text, one, telling) if isinstance(one, UserError) else one
            for side, one, telling in zip(self.sides, begun, tellings, strict=True)
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

    def keep(
        self,
        kind: Kind,
        name: str,
        *,
        side: int = 0,
        exchange: int = -1,
        answer: str | None = None,
    ) -> Kept:
        """Keep an answer of a side as a row or an item, see `keep`.

        Args:
            kind: what it is kept as.
            name: of the dataset for a row, of the capability or guard for an item.
            side: whose answer.
            exchange: to which question, as the side counts them; by default the last.
            answer: the right one, where the model's isn't.

        Raises:
            UserError: nothing was answered yet, or as `keep`.
        """
        one = self.sides[side]
        if not one.exchanges:
            raise UserError("nothing was answered yet", fix="ask something first")
        last = one.exchanges[exchange]
        who = one.who.name if one.who.id is None else f"{one.who.name} {one.who.id[:12]}"
        source = f"chat with {who}, {datetime.now(tz=UTC).date().isoformat()}"
        said = {"role": "assistant", "content": last.said.text if answer is None else answer}
        source += "" if answer is None else ", answer corrected"
        return keep(self._ws, self._ui, kind, name, (*last.turns, said), source)

    def renew(self, ws: OpenWorkspace) -> None:
        """Go on in the same workspace by a spec that was changed."""
        self._ws = ws

    def forget(self) -> None:
        """Begin again: nothing was said."""
        for side in self.sides:
            side.asked.clear()
            side.exchanges.clear()

    def _begun(self, side: Side, text: str, told: Told | None) -> Reply | UserError:
        """Ask a side; return why it can't be asked, where it can't."""
        try:
            ask, last = self._ask(side, text)
            return Reply(side, text, last, side.voice.ask(ask, side.who, told))
        except UserError as error:
            return error

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
