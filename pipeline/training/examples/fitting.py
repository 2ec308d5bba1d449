"""Whether rows fit a base's chat template, found before its weights are loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.training.examples.encode import is_text, turns_of
from registry.chat.chat import TurnRefusedError
from registry.chat.messages import shape

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pipeline.training.examples.encode import TrainingRow
    from registry.chat.chat import Chat


class TemplateFit:
    """Tries a row of each shape: who speaks, with calls, thoughts and tools or without.

    What a template makes of the words themselves is seen when they are encoded.
    """

    def __init__(self, chat: Chat) -> None:
        """Take the base's template."""
        self._chat = chat
        self._found: dict[Hashable, TurnRefusedError | None] = {}
        self._special = re.compile("|".join(map(re.escape, chat.texts_of(chat.specials))) or "$^")

    def refuses(self, row: TrainingRow) -> TurnRefusedError | None:
        """Return why rows like this one can't be trained on, or None."""
        kept = tuple(message.get("train") is False for message in row.messages)
        key = (shape(row.messages, row.tools), kept)
        if key not in self._found:
            self._found[key] = self._try(row)
        return self._found[key]

    def is_chat_text(self, row: TrainingRow) -> bool:
        """Whether a plain text is written in the base's chat format already."""
        if not is_text(row) or not self._chat.tokenizer.chat_template:
            return False
        text = str(row.messages[0]["content"])
        return text.rstrip().endswith(self._chat.texts_of(self._chat.specials))

    def special_in(self, row: TrainingRow) -> str | None:
        """Return the first special token of the base that is written out in a row's text."""
        said = (str(message.get("content") or "") for message in row.messages)
        found = next(filter(None, map(self._special.search, said)), None)
        return found[0] if found else None

    def _try(self, row: TrainingRow) -> TurnRefusedError | None:
        try:
            turns_of(self._chat, row)
        except TurnRefusedError as error:
            return error
        return None
