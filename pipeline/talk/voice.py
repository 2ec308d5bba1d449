"""Loaded models that answer: each is loaded once, its adapters are switched.

Heavy where something is loaded (torch, transformers), light to import.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evals.engine.live.ask import Ask, Stream, Told
    from evals.engine.live.worker import Live
    from pipeline.talk.who import Talker
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.chat.chat import Chat
    from registry.chat.form import AnswerForm
    from registry.chat.messages import Message, Tools
    from registry.chat.tokens import TextTokens
    from registry.models.base import BaseSpec


@dataclass(frozen=True)
class Voice:
    """A loaded model, and how it is spoken to.

    Attributes:
        live: answers.
        chat: its tokenizer and template, with what the spec says of them.
        form: what its template writes around an answer.
    """

    live: Live
    chat: Chat
    form: AnswerForm
    _tokens: TextTokens
    _lock: Lock

    @classmethod
    def of(cls, live: Live) -> Self:
        """Return the voice of a model."""
        from registry.chat.form import answer_form
        from registry.chat.tokens import TextTokens

        chat = live.loaded.chat
        return cls(live, chat, answer_form(chat), TextTokens(chat.tokenizer), Lock())

    def prompt(self, turns: Sequence[Message], tools: Tools = None) -> tuple[int, ...]:
        """Return the tokens that ask for the next answer, as scoring asks and training shows.

        Raises:
            UserError: the template refuses these turns, or leaves something of them out.
        """
        with self._lock:  # a tokenizer's settings are those of its last call
            return tuple(self._tokens.whole(self.chat.context(turns, tools)))

    def text_prompt(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text that is to be gone on with, with what it needs in front."""
        with self._lock:
            return tuple(self._tokens.whole(text))

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer to `prompt`, beside the base's end tokens."""
        return (self.form.end,) if self.form.end else ("\n\n",)

    @property
    def plain(self) -> bool:
        """Whether answers can be told from thoughts without special tokens."""
        return not self.form.needs_specials(self._specials)

    def answer_in(self, written: str) -> str:
        """Return the answer in what was written, without its thought and special tokens."""
        answer = self.form.answer_in(written)
        for special in () if self.plain else self._specials:
            answer = answer.replace(special, "")
        return answer

    def ask(self, ask: Ask, who: Talker, told: Told | None = None) -> Stream:
        """Ask one that has this voice; `ask` names no adapter.

        Raises:
            UserError: as `Live.submit`.
        """
        return self.live.submit(replace(ask, adapter=who.adapter), told)

    def ready(self, who: Talker) -> None:
        """Read what one needs beside this voice, so that the first answer takes no longer.

        Raises:
            UserError: an adapter that can't be put on the base.
        """
        from evals.engine.live.ask import Ask

        self.ask(Ask(self.text_prompt("."), limit=1), who).wait()

    @cached_property
    def _specials(self) -> tuple[str, ...]:
        return self.chat.texts_of(self.chat.specials)


class Room:
    """The models of a workspace that are loaded, each once, until it is closed.

    Args:
        ws: the workspace.
        ui: is told what is loaded.
    """

    def __init__(self, ws: OpenWorkspace, ui: Ui) -> None:
        """See the class; nothing is loaded yet."""
        self._ws = ws
        self._ui = ui
        self._voices: dict[BaseSpec, Voice] = {}
        self._lock = Lock()

    def voice(self, who: Talker) -> Voice:
        """Return the voice of somebody; loads what it needs.

        Raises:
            UserError: it can't be loaded.
        """
        from evals.engine.live.worker import Live
        from registry.models.load import load_model

        with self._lock:
            if who.weights not in self._voices:
                name = who.base if who.kind != "model" else who.name
                if who.kind != "model":
                    self._ws.models.identity(who.base)  # checks what came from outside
                with self._ui.progress(f"load {name}"):
                    loaded = load_model(name, who.weights, self._ws.root)
                    self._voices[who.weights] = Voice.of(Live(loaded))
            return self._voices[who.weights]

    def ready(self, who: Talker) -> Voice:
        """Return the voice of somebody who can answer at once.

        Raises:
            UserError: as `voice`, or what goes on the base can't be put on it.
        """
        voice = self.voice(who)
        if who.adapter is not None:
            with self._ui.progress(f"load {who.name}"):
                voice.ready(who)
        return voice

    def renew(self, ws: OpenWorkspace) -> None:
        """Go on in the same workspace by a spec that was changed."""
        with self._lock:
            self._ws = ws

    def has(self, who: Talker) -> bool:
        """Whether what somebody speaks by is loaded."""
        return who.weights in self._voices

    def only(self, needed: Iterable[Talker]) -> None:
        """Let go of the models that none of these speaks by."""
        wanted = {who.weights for who in needed}
        with self._lock:
            gone = [self._voices.pop(one) for one in [*self._voices] if one not in wanted]
            if not gone:
                return
            while gone:
                gone.pop().live.close()
            _free()

    def close(self) -> None:
        """End all answers and let go of the models."""
        with self._lock:
            for voice in self._voices.values():
                voice.live.close()
            self._voices.clear()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _free() -> None:
    """Give memory back: on a GPU it is there for the next model."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
