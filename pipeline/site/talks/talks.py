"""The talks that pages have open, on models that all of them share.

They are bounded: the one that was used longest ago gives way, and what nobody talks to for half an
hour is let go, with its memory. A model stays loaded between two talks: it goes when others are
loaded that need none of it.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from functools import partial
from threading import Lock, RLock, Timer
from typing import TYPE_CHECKING

from pipeline.site.talks.open_talk import OpenTalk
from pipeline.talk.asking import asking
from pipeline.talk.reply import Side
from pipeline.talk.talk import Talk
from pipeline.talk.voice import Room
from pipeline.talk.who import talker, talkers
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import SPEC_FILE, StoreRequestError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from evals.engine.live.ask import Finish, Piece
    from pipeline.site.talks.chosen import Chosen
    from pipeline.site.talks.open_talk import Question, Turn
    from pipeline.talk.asking import Asking
    from pipeline.talk.keep import Kept, Kind
    from pipeline.talk.who import Talker
    from registry.catalog.catalog import Catalog

MOST = 8
"""Talks that are open at once."""
IDLE_S = 1800.0
"""Seconds after which a talk that nobody uses is closed."""
_LOOK_S = 60.0


class Talks:
    """The talks of a workspace's page.

    Args:
        root: the workspace's folder.
        catalog: of the page, which answers from memory.
    """

    def __init__(self, root: Path, catalog: Catalog) -> None:
        """Nothing is opened yet."""
        self._root = root
        self._catalog = catalog
        self._read: tuple[object, OpenWorkspace] | None = None
        self._room: Room | None = None
        self._open: dict[str, OpenTalk] = {}
        self._lock = RLock()
        self._loading = Lock()
        self._used = time.monotonic()
        self._looking: Timer | None = None
        self._closed = False

    def workspace(self) -> OpenWorkspace:
        """Return the workspace by its spec as it is now.

        Raises:
            UserError: the spec isn't valid.
        """
        stamp = self.stamp()
        with self._lock:
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, OpenWorkspace.open(self._root)
            return self._read[1]

    def stamp(self) -> object:
        """Return what changes when the spec does."""
        try:
            found = (self._root / SPEC_FILE).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def everybody(self) -> tuple[Talker, ...]:
        """Return everybody who can be talked to."""
        return talkers(self._looked_at())

    def named(self, name: str) -> Talker:
        """Return who has a name; without one the champion, or else the base that is trained.

        Raises:
            UserError: nobody has it.
        """
        return talker(self._looked_at(), name or None)

    def find(self, key: str) -> OpenTalk:
        """Return a talk that is open.

        Raises:
            UserError: it isn't, any more.
        """
        with self._lock:
            if key not in self._open:
                raise StoreRequestError("this talk is over", fix="begin a new one: New talk")
            return self._open[key]

    def begun(self, key: str, chosen: Chosen) -> tuple[OpenTalk, Question]:
        """Return a talk and the question that it was given: a new one, for others than before.

        Args:
            key: of the talk; empty for a new one.
            chosen: whom, what and how to ask.

        Raises:
            UserError: nobody has that name, a value can't be, the talk is over or being answered.
        """
        names = (chosen.model, *filter(None, [chosen.against]))
        who = tuple(self.named(name) for name in names)
        chosen.drawing()
        if not chosen.text.strip():
            raise UserError("nothing is asked", expected="a text")
        one = self.find(key) if key else None
        if one is None or one.who != who:
            one = self._opened(who, chosen)
        question = one.question(chosen.text)
        before, one.chosen = one.chosen, chosen
        if before.prompt != chosen.prompt and one.talk is not None:
            one.talk.asking = None
        self._used = time.monotonic()
        return one, question

    def to_load(self, one: OpenTalk) -> list[str]:
        """Return the names of a talk's models that have to be loaded first."""
        room = self._room
        return [who.name for who in one.who if room is None or not room.has(who)]

    def ask(
        self, one: OpenTalk, question: Question, told: Callable[[int, Piece | Finish], None]
    ) -> Turn:
        """Load what a talk needs and ask it; a talk whose models can't be loaded is closed.

        Raises:
            UserError: as `OpenTalk.ask`.
        """
        try:
            return one.ask(question, partial(self._ready, one), told)
        except BaseException:
            if one.talk is None:
                self.end(one.key)
            raise

    def keep(
        self, one: OpenTalk, kind: Kind, name: str, turn: int, side: int, answer: str | None
    ) -> Kept:
        """Keep an answer; it is noted with it.

        Raises:
            UserError: there is no such answer, or as `Talk.keep`.
        """
        try:
            kept = one.turns[turn].answers[side]
        except IndexError:
            raise StoreRequestError("this talk has no such answer") from None
        if kept.exchange is None or one.talk is None:
            raise StoreRequestError("this answer hasn't come, so that it can't be kept")
        one.talk.renew(self.workspace())
        made = one.talk.keep(kind, name, side=side, exchange=kept.exchange, answer=answer)
        at = f"/data/{made.version_id}" if made.version_id else None
        kept.kept.append((str(made), at))
        one.last[kind] = name
        one.used = self._used = time.monotonic()
        return made

    def end(self, key: str) -> None:
        """Close a talk, if it is open; its models stay for the next one."""
        with self._lock:
            one = self._open.pop(key, None)
        if one is not None:
            one.stop()

    def stop(self) -> None:
        """Cancel all that is being written."""
        with self._lock:
            for one in self._open.values():
                one.stop()

    def close(self) -> None:
        """Close all talks and let go of the models."""
        with self._lock:
            self._closed = True
            if self._looking is not None:
                self._looking.cancel()
            self.stop()
            self._open.clear()
        with self._loading:
            if self._room is not None:
                self._room.close()

    def sweep(self, idle_s: float = IDLE_S) -> None:
        """Close what nobody has used for so long, and let go of the models that nobody needs."""
        before = time.monotonic() - idle_s
        with self._lock:
            idle = [one for one in self._open.values() if not one.is_busy and one.used <= before]
            for one in idle:
                del self._open[one.key]
        if idle or self._used <= before:
            with self._loading:
                self._only_needed()

    def _opened(self, who: tuple[Talker, ...], chosen: Chosen) -> OpenTalk:
        """Open a talk; where there are too many the one that was used longest ago is closed."""
        one = OpenTalk(secrets.token_urlsafe(9), who, chosen)
        with self._lock:
            while len(self._open) >= MOST:
                self.end(min(self._open.values(), key=lambda other: other.used).key)
            self._open[one.key] = one
            if self._looking is None:
                self._look()
        return one

    def _ready(self, one: OpenTalk) -> Talk:
        """Return its talk, with models and prompt as they are chosen."""
        ws = self.workspace()
        applied = self._asking(ws, one)
        talk = one.talk
        if talk is None:
            with self._loading:
                room = self._room = self._room or Room(ws, Ui(as_json=True))
                room.renew(ws)
                self._only_needed()
                sides = [Side(who, room.ready(who)) for who in one.who]
            talk = Talk(ws, Ui(as_json=True), room, sides)
        talk.asking = applied
        talk.drawing = one.chosen.drawing()
        return talk

    @staticmethod
    def _asking(ws: OpenWorkspace, one: OpenTalk) -> Asking | None:
        if one.talk is not None and one.talk.asking is not None:
            return one.talk.asking  # of the prompt that is chosen still
        prompt, capability = one.chosen.asked_by
        return asking(ws, Ui(as_json=True), prompt, capability)

    def _only_needed(self) -> None:
        if self._room is not None:
            with self._lock:
                needed = [who for one in self._open.values() for who in one.who]
            self._room.only(needed)

    def _looked_at(self) -> OpenWorkspace:
        return replace(self.workspace(), catalog=self._catalog)

    def _look(self) -> None:
        self._looking = Timer(_LOOK_S, self._looked)
        self._looking.daemon = True
        self._looking.start()

    def _looked(self) -> None:
        self.sweep()
        with self._lock:
            if not self._closed:
                self._look()
