"""Conversations as a base's template renders them, whole and up to the generation prompt."""

from __future__ import annotations

from os.path import commonprefix
from typing import TYPE_CHECKING, Any, cast

from registry.chat.messages import PLAIN, Dialect, dialects, marked, shape, spoken
from registry.chat.template import Rendered, Template, TemplateRefusedError, plain_text

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from transformers import PreTrainedTokenizerBase

    from registry.chat.messages import Message, Tools
    from registry.chat.settings import ChatSettings

PROBE = "Qzanswer"
"""An answer that no template knows."""

_PYTHON = "'type': 'text'"  # what a template writes that takes no parts


class Renderer:
    """Renders with one tokenizer's template, or plainly where it has none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: ChatSettings) -> None:
        """Take the tokenizer, and what its template is told."""
        self._tokenizer = tokenizer
        self._settings = settings
        self._template = Template(tokenizer, settings)
        self._dialects: dict[Hashable, Dialect] = {}

    def written(self, messages: Sequence[Message], tools: Tools, *, generate: bool) -> str:
        """The text of messages in the dialect that the template takes.

        Raises:
            TemplateRefusedError: it refuses them.
        """
        if not self._tokenizer.chat_template:
            return plain_text(messages, tools, str(self._tokenizer.eos_token or ""))
        dialect = self._dialect(messages, tools)
        return self._template.render(spoken(messages, dialect), tools, generate=generate)

    def _dialect(self, messages: Sequence[Message], tools: Tools) -> Dialect:
        """The first dialect by which the template renders everything; else by which it renders."""
        key = shape(messages, tools)
        if key in self._dialects:
            return self._dialects[key]
        everything = marked(messages, tools)
        best: tuple[int, Dialect] | None = None
        for dialect in dialects(messages):
            try:
                said = spoken(everything.messages, dialect)
                asks = not messages or messages[-1]["role"] != "assistant"
                text = self._template.render(said, everything.tools, generate=asks)
            except TemplateRefusedError:
                continue
            if dialect.parts and _PYTHON in text:
                continue
            missing = sum(m.word not in text for m in everything.marks if not m.reasoning)
            if best is None or missing < best[0]:
                best = (missing, dialect)
            if not missing:
                break
        self._dialects[key] = best[1] if best else PLAIN
        return self._dialects[key]

    def context(self, messages: Sequence[Message], tools: Tools) -> str:
        """The rendering with the generation prompt; told not to think, without an opened thought.

        Raises:
            TemplateRefusedError: as `written`.
        """
        text = self.written(messages, tools, generate=True)
        if self._settings.thinking != "off" or not self._tokenizer.chat_template:
            return text
        answered = [*messages, {"role": "assistant", "content": PROBE}]
        same = self.agreed(text, self.written(answered, tools, generate=False))
        before = self.written(messages, tools, generate=False)
        # Only of the generation prompt: an answer may change what is before it too.
        opens = text.startswith(before) and len(before) <= same
        return Rendered(text[:same]) if opens else text

    def agreed(self, text: str, other: str) -> int:
        """How many characters two texts begin with that are the same tokens in both."""
        if other.startswith(text):
            return len(text)
        if not self._tokenizer.is_fast:
            return len(commonprefix([text, other]))  # noqa: RUF071 - texts, not paths
        backend = cast("Any", self._tokenizer).backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        ours, theirs = backend.encode_batch([text, other], add_special_tokens=False)
        same = 0
        for one, two in zip(ours.ids, theirs.ids, strict=False):
            if one != two:
                break
            same += 1
        return int(ours.offsets[same - 1][1]) if same else 0
