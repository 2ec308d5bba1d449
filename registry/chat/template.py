"""A base's chat template at work: messages in, the text that the model reads out.

Templates come from anywhere and run in transformers' sandbox. What one raises, whatever it is, is
a `TemplateRefusedError`: it refuses these messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from registry.chat.messages import Message, Tools
    from registry.chat.settings import ChatSettings


class TemplateRefusedError(ModelError):
    """The template can't render these messages."""


class Rendered(str):
    """Text that a chat template wrote: it has all the special tokens that the base wants."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Template:
    """The template of a tokenizer, with what the spec tells it."""

    tokenizer: PreTrainedTokenizerBase
    settings: ChatSettings

    def render(self, chat: Sequence[Message], tools: Tools, *, generate: bool) -> Rendered:
        """Return the text of messages that are written as the template takes them.

        Raises:
            TemplateRefusedError: it raises anything.
        """
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import _compile_jinja_template

        offered = list(tools) if tools else None
        try:
            source = self.tokenizer.get_chat_template(None, offered)
            told = {**self.tokenizer.special_tokens_map, **self.settings.variables()}
            text = _compile_jinja_template(source).render(
                messages=list(chat),
                tools=offered,
                documents=None,
                add_generation_prompt=generate,
                **told,
            )
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            ArithmeticError,
            AttributeError,
            RecursionError,
        ) as error:
            said = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise TemplateRefusedError(
                f"the chat template refuses these messages: {said}"
            ) from error
        return Rendered(text)


def plain_text(messages: Sequence[Message], tools: Tools, end: str) -> str:
    """Return messages as a base without a template reads them.

    The tools as JSON and the system text, each followed by an empty line; a user's text and a line
    break; an assistant's text, then an empty line or, at the very end, `end`.
    """
    parts = [f"Tools: {json.dumps(list(tools), ensure_ascii=False)}\n\n"] if tools else []
    for number, message in enumerate(messages, start=1):
        text = message.get("content") or ""
        if message["role"] != "assistant":
            parts.append(text + ("\n\n" if message["role"] == "system" else "\n"))
        else:
            parts.append(f"{text}\n\n" if number < len(messages) else f"{text}{end}")
    return "".join(parts)
