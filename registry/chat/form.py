"""The form of a base's answers: what its template writes around one, and how one is read.

Found from the template itself: an answer of a single unlikely word is rendered, with a thought and
without, and what stands around the word is what the template adds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import TYPE_CHECKING

from registry.chat.chat import Chat, TurnRefusedError

if TYPE_CHECKING:
    from registry.chat.settings import Thinking

_ANSWER, _THOUGHT = "gapmend0answer", "gapmend0thought"
_QUESTION = {"role": "user", "content": "."}
_SAID = {"role": "assistant", "content": _ANSWER}
_OPENED = re.compile(r"<(\w+)>\s*$")


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How a base answers in the chat template that it is asked with.

    Attributes:
        before: what it writes before an answer without a thought, such as an empty thought.
        end: what ends its turn, such as `<|im_end|>`.
        separator: what stands between a thought and the answer, such as `</think>`; empty where
            the template knows no thoughts.
        opener: what begins a thought, such as `<think>`.
        opened: the generation prompt begins the thought.
        refused: why an answer without a thought can't be asked for; None where it can.
    """

    before: str
    end: str
    separator: str = ""
    opener: str = ""
    opened: bool = False
    refused: TurnRefusedError | None = None

    def written(self, answer: str) -> str:
        """Return what the base writes to give this answer, without a thought.

        Raises:
            TurnRefusedError: its template doesn't say how.
        """
        if self.refused is not None:
            raise self.refused
        return f"{self.before}{answer}{self.end}"

    def answer_in(self, written: str) -> str:
        """Return the answer in what the model wrote: without the thought, '' if that didn't end."""
        if self.separator and self.separator in written:
            return written.rpartition(self.separator)[2].strip()
        begun = self.opened or (self.opener and written.lstrip().startswith(self.opener))
        if self.separator and begun:
            return ""
        return written.strip().removeprefix(self.before.strip()).strip()

    def needs_specials(self, specials: tuple[str, ...]) -> bool:
        """Whether special tokens have to be seen to tell an answer from a thought."""
        shown = self.separator + self.opener + self.before
        return any(special in shown for special in specials)


def answer_form(chat: Chat) -> AnswerForm:
    """Find the form of a base's answers to a single question.

    Raises:
        UserError: the template refuses even that.
    """
    opened = _OPENED.search(chat.context([_QUESTION]))
    # A base that was told not to think may do it all the same.
    opener, separator = _around_a_thought(_told(chat, "auto"))
    refused = None
    try:
        target = chat.turn([_QUESTION, _SAID], 1).target
    except TurnRefusedError as error:
        refused, target = error, _told(chat, "off").turn([_QUESTION, _SAID], 1).target
    before, _, rest = target.partition(_ANSWER)
    if opened and not separator:
        separator = f"</{opened.group(1)}>"
    return AnswerForm(
        before="" if refused else before,
        end=_end(chat, rest),
        separator=(_common_end(before, separator) or separator).strip(),
        opener=opener.strip(),
        opened=bool(opened) and not opener.strip(),
        refused=refused,
    )


def _told(chat: Chat, thinking: Thinking) -> Chat:
    return Chat(chat.tokenizer, chat.identity, replace(chat.settings, thinking=thinking))


def _around_a_thought(chat: Chat) -> tuple[str, str]:
    """What stands before a thought, and between it and its answer; '' where there are none."""
    try:
        target = chat.turn([_QUESTION, {**_SAID, "reasoning": _THOUGHT}], 1).target
    except TurnRefusedError:
        return "", ""
    opener, _, rest = target.partition(_THOUGHT)
    return opener, rest.partition(_ANSWER)[0]


def _end(chat: Chat, behind: str) -> str:
    """Up to and with the first stop; else all, if it ends with a special token."""
    stops = [(behind.find(stop), stop) for stop in chat.texts_of(chat.stops)]
    found = [at + len(stop) for at, stop in stops if at >= 0]
    if found:
        return behind[: min(found)]
    return behind.rstrip() if behind.rstrip().endswith(chat.texts_of(chat.specials)) else ""


def _common_end(one: str, other: str) -> str:
    return commonprefix([one[::-1], other[::-1]])[::-1]  # noqa: RUF071 - texts, not paths
