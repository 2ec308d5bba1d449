"""The models of a workspace by the names that requests give.

Looked up anew when anything was committed, so that an adapter that was trained, or an alias that
was moved, a moment ago is the one that answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.serving.app import ModelName
from pipeline.talk.who import talker, talkers
from registry.errors import StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evals.engine.live.ask import Ask, Stream, Told
    from pipeline.talk.voice import Room, Voice
    from pipeline.talk.who import Talker
    from pipeline.workspace.workspace import OpenWorkspace

_MADE = "SELECT id, epoch(created_at)::BIGINT FROM objects WHERE kind IN ('adapter', 'model')"


@dataclass(frozen=True)
class Speaker:
    """Who answers by one name; see `app.Voice`."""

    voice: Voice
    who: Talker

    @property
    def context(self) -> int:
        """The longest prompt and answer, in tokens."""
        return self.voice.live.loaded.context

    def asked(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
    ) -> tuple[int, ...]:
        """Return the tokens that ask for the next answer, as it was trained and scored.

        Raises:
            UserError: the template refuses it, or leaves something out.
        """
        return self.voice.prompt(messages, tools or None)

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts that end an answer in a conversation."""
        return self.voice.stops

    def encoded(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text; of an empty one that by which a text begins."""
        tokens = self.voice.text_prompt(text)
        if tokens:
            return tokens
        first = self.voice.chat.tokenizer.bos_token_id
        return (self.voice.chat.end_of_text if first is None else int(str(first)),)

    def decoded(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return str(self.voice.chat.tokenizer.decode(list(tokens)))

    @cached_property
    def texts(self) -> Sequence[str]:
        """The text of each token."""
        tokenizer = self.voice.chat.tokenizer
        ids = [[token] for token in range(len(tokenizer))]
        return tuple(tokenizer.batch_decode(ids, skip_special_tokens=False))

    def submit(self, ask: Ask, told: Told) -> Stream:
        """Begin an answer."""
        return self.voice.ask(ask, self.who, told)


@dataclass
class WorkspaceDesk:
    """The models of a workspace; see `app.Desk`.

    Attributes:
        ws: the workspace.
        room: the loaded ones.
        only: the names that are served; empty: all.
    """

    ws: OpenWorkspace
    room: Room
    only: tuple[str, ...] = ()
    # What was found since the last commit: opening the catalog takes longer than nano takes for a
    # short answer.
    _stamp: object = None
    _speakers: dict[str, Speaker] = field(default_factory=dict)
    _names: list[ModelName] = field(default_factory=list)

    def names(self) -> list[ModelName]:
        """Return bases, aliases, adapters and merged models, or those alone that are served."""
        self._look()
        if not self._names:
            everybody = [replace(talker(self.ws, name), name=name) for name in self.only]
            made = dict(self.ws.catalog.query(_MADE).rows)
            self._names = [
                ModelName(who.name, int(made.get(who.id, 0)), who.base, _parent(who.name, who.id))
                for who in everybody or talkers(self.ws)
            ]
        return self._names

    def find(self, name: str) -> Speaker | None:
        """Return who answers by a name, loaded; None: nobody.

        Raises:
            UserError: it is there, and can't be loaded.
        """
        if self.only and name not in self.only:
            return None
        self._look()
        if name not in self._speakers:
            try:
                who = talker(self.ws, name)
            except StoreRequestError:
                self.ws.catalog.alias(name)  # raises again where the catalog itself isn't to be had
                return None
            self._speakers[name] = Speaker(self.room.voice(who), who)
        return self._speakers[name]

    def adapters(self, base: str) -> dict[str, Path]:
        """Return the folders of the adapters of a base by each name that they have."""
        everybody = (talker(self.ws, name.id) for name in self.names())
        return {who.name: who.adapter for who in everybody if who.base == base and who.adapter}

    def _look(self) -> None:
        stamp = self.ws.catalog.stamp()
        if stamp != self._stamp:
            self._speakers.clear()
            self._names = []
        self._stamp = stamp


def _parent(name: str, thing: str | None) -> str | None:
    """Return what an alias stands for."""
    return thing[:12] if thing is not None and not thing.startswith(name) else None
