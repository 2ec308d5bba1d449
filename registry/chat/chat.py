"""How one base is spoken to: the context that asks, and what is to be written from there.

One rule, for training and for asking. The context of an answer is the template's own rendering of
what came before, with the generation prompt. What is trained is what the template's rendering of
the conversation up to and with that answer has behind this context. Only whole renderings are
compared; no text is searched for in another. What doesn't fit the rule is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

from registry.chat.messages import joined, marked, shape, without_thoughts
from registry.chat.rendering import PROBE, Renderer
from registry.chat.template import Rendered, TemplateRefusedError
from registry.chat.tool_text import in_text
from registry.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from transformers import PreTrainedTokenizerBase

    from registry.chat.messages import Mark, Message, Tools
    from registry.chat.settings import ChatSettings, Thinking

_THINKING: tuple[Thinking, ...] = ("off", "on", "auto")


class TurnRefusedError(DataError):
    """This turn can't be asked or trained as it stands; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer where it belongs.

    Attributes:
        context: what the model reads: everything before, and the generation prompt.
        target: what it has to write from there; text behind its end of turn may follow.
    """

    context: str
    target: str


class SpokenBase(Protocol):
    """What has to be known of a base to speak to it; `BaseIdentity` has it."""

    @property
    def name(self) -> str:
        """Its name in the spec."""

    @property
    def digest(self) -> str:
        """What it is."""

    @property
    def stops(self) -> tuple[int, ...]:
        """Tokens at which its configs end an answer."""

    @property
    def chat(self) -> ChatSettings:
        """What the spec says about speaking to it."""


@dataclass(frozen=True)
class Chat:
    """How one base is spoken to.

    Attributes:
        tokenizer: the base's tokenizer, with its chat template if it has one.
        identity: which base this is, and how the spec wants it spoken to.
        told: to speak to it otherwise than the spec wants.
    """

    tokenizer: PreTrainedTokenizerBase
    identity: SpokenBase
    told: ChatSettings | None = None

    @property
    def end_of_text(self) -> int:
        """The end-of-text token.

        Raises:
            UserError: the tokenizer has none, so that no answer could end.
        """
        end = self.tokenizer.eos_token_id
        if end is None:
            where = f"bases.{self.identity.name}"
            raise ModelError("the tokenizer has no end-of-text token", where, "an eos_token")
        return int(cast("int", end))

    @property
    def name(self) -> str:
        """A name for caches: which tokenizer, without a path."""
        return f"{self.identity.name}-{self.identity.digest[:12]}"

    @property
    def settings(self) -> ChatSettings:
        """How it is spoken to."""
        return self.told or self.identity.chat

    @cached_property
    def stops(self) -> frozenset[int]:
        """The tokens that generation ends at, by tokenizer, config and generation config."""
        ends = {*self.identity.stops, self.tokenizer.eos_token_id}
        return frozenset(cast("int", end) for end in ends if end is not None)

    @cached_property
    def specials(self) -> frozenset[int]:
        """The stops and all other special tokens: templates may end a turn with any of them."""
        added = self.tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special}
        return self.stops | special | frozenset(self.tokenizer.all_special_ids)

    def render(
        self, messages: Sequence[Message], *, tools: Tools = None, add_generation_prompt: bool
    ) -> str:
        """Messages as the text that the model reads; see `plain_text` for bases without a template.

        Args:
            messages: role and content, in order.
            tools: JSON schemas of tools, for templates that take them.
            add_generation_prompt: end where the assistant's answer begins.

        Raises:
            UserError: the template can't render these messages.
        """
        messages, tools = self._heard(messages, tools)
        if add_generation_prompt:
            return self._asked(messages, tools)
        return self._renderer.written(messages, tools, generate=False)

    def context(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """What the model reads when it is asked.

        Raises:
            TurnRefusedError: the template refuses these messages, or leaves something out.
        """
        heard, tools = self._heard(messages, tools)
        context = self._asked(heard, tools)
        self._check(heard, tools, asked=True)
        return context

    def turn(self, messages: Sequence[Message], number: int, tools: Tools = None) -> Turn:
        """The assistant's turn at `number`, from 0, as it is asked for and trained.

        Raises:
            TurnRefusedError: the template refuses the messages, leaves something out, or asks
                otherwise than it shows this answer.
        """
        heard, tools = self._heard(messages[: number + 1], tools)
        if not (heard[-1].get("content") or "").strip() and not heard[-1].get("tool_calls"):
            raise TurnRefusedError("an answer is empty")
        parted = self._parted(heard, tools)
        self._check(heard, tools, asked=False)
        return parted

    def left_open(self, messages: Sequence[Message]) -> str:
        """Messages as text that ends with the last one's content: the model writes on from it."""
        if not self.tokenizer.chat_template:
            before = self.render(messages[:-1], add_generation_prompt=True)
            return before + str(messages[-1]["content"])
        return Rendered(
            self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                continue_final_message=True,
                **self.settings.variables(),
            )
        )

    def _heard(self, messages: Sequence[Message], tools: Tools) -> tuple[Sequence[Message], Tools]:
        """Messages and tools as the spec wants them said."""
        if self.settings.tools == "text":
            messages, tools = in_text(messages, tools), None
        if self.settings.system == "join":
            messages = joined(messages)
        return without_thoughts(messages) if self.settings.thinking == "off" else messages, tools

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.tokenizer, self.settings)

    def _asked(self, messages: Sequence[Message], tools: Tools) -> str:
        try:
            return self._renderer.context(messages, tools)
        except TemplateRefusedError as error:
            raise self._refused(error, messages, tools) from error

    def _refused(
        self, error: TemplateRefusedError, messages: Sequence[Message], tools: Tools
    ) -> TurnRefusedError:
        bare = [message for message in messages if message["role"] != "system"]
        if len(bare) < len(messages):
            try:
                self._renderer.context(bare, tools)
            except TemplateRefusedError:
                return TurnRefusedError(error.what)
            return TurnRefusedError(error.what, fix=self._fix("system: join"))
        return TurnRefusedError(error.what)

    def _parted(self, messages: Sequence[Message], tools: Tools) -> Turn:
        """Part a conversation that ends with an answer into what asks for it and what it is."""
        context = self._asked(messages[:-1], tools)
        try:
            whole = self._renderer.written(messages, tools, generate=False)
        except TemplateRefusedError as error:
            raise self._refused(error, messages, tools) from error
        if whole.startswith(context):
            target: str | None = whole[len(context) :]
        else:
            target = self._without_system(messages, tools)
        if target is None:
            raise self._not_asked(messages, tools, context, whole)
        return Turn(context, target + self._closing(messages, tools, target))

    def _without_system(self, messages: Sequence[Message], tools: Tools) -> str | None:
        """The answer, of a template that moves the system text away once there is an answer."""
        bare = [message for message in messages if message["role"] != "system"]
        if len(bare) == len(messages):
            return None
        try:
            context = self._renderer.context(bare[:-1], tools)
            whole = self._renderer.written(bare, tools, generate=False)
        except TemplateRefusedError:
            return None
        return whole[len(context) :] if whole.startswith(context) else None

    def _not_asked(
        self, messages: Sequence[Message], tools: Tools, context: str, whole: str
    ) -> TurnRefusedError:
        at = self._renderer.agreed(context, whole)
        return TurnRefusedError(
            f"the chat template asks with {context[at:][-40:]!r}, and shows this answer as "
            f"{whole[at : at + 40]!r}",
            fix=self._other_thinking(messages, tools),
        )

    def _other_thinking(self, messages: Sequence[Message], tools: Tools) -> str | None:
        """The setting by which this answer is asked for as it is shown."""
        if self.told is not None:
            return None  # this is such a try
        for thinking in _THINKING:
            told = replace(self.settings, thinking=thinking)
            try:
                Chat(self.tokenizer, self.identity, told).turn(messages, len(messages) - 1, tools)
            except TurnRefusedError:
                continue
            return self._fix(f"thinking: {thinking}")
        return None

    def _closing(self, messages: Sequence[Message], tools: Tools, target: str) -> str:
        """The stop that a template writes only once somebody else speaks (GLM's, for instance)."""
        if target.rstrip().endswith(self.texts_of(self.specials)):
            return ""
        calls = messages[-1].get("tool_calls")
        answer = {"role": "assistant", "content": PROBE, "tool_calls": calls}
        ended = [*without_thoughts(messages[:-1]), answer]
        following = [*ended, {"role": "tool" if calls else "user", "content": PROBE}]
        try:
            whole = self._renderer.written(ended, tools, generate=False)
            text = self._renderer.written(following, tools, generate=False)
        except TemplateRefusedError:
            return ""
        if not text.startswith(whole):
            return ""
        added = text[len(whole) :]
        blank = added[: len(added) - len(added.lstrip())]
        ends = self.texts_of(self.stops)
        return next((blank + end for end in ends if added.startswith(end, len(blank))), "")

    def texts_of(self, ids: frozenset[int]) -> tuple[str, ...]:
        """The texts of special tokens, the longest first."""
        texts = {str(self.tokenizer.convert_ids_to_tokens(one)) for one in ids} - {"", "None"}
        return tuple(sorted(texts, key=lambda text: (-len(text), text)))

    @cached_property
    def _left_out(self) -> dict[Hashable, str | None]:
        return {}

    def _check(self, messages: Sequence[Message], tools: Tools, *, asked: bool) -> None:
        """Refuse messages of which the template leaves something out; found once a shape."""
        key = (shape(messages, tools), asked)
        if key not in self._left_out:
            self._left_out[key] = self._first_left_out(messages, tools, asked=asked)
        what = self._left_out[key]
        if what is not None:
            system = what.startswith("the system's") and self.settings.system == "keep"
            thought = "reasoning" in what or "thought" in what
            tool = what.startswith(("a call", "an argument", "tool ", "the tool's"))
            raise TurnRefusedError(
                f"the chat template leaves out {what}"
                if self.tokenizer.chat_template
                else f"a base without a chat template leaves out {what}",
                fix=self._fix("system: join")
                if system
                else self._fix("thinking: off")
                if thought
                else self._fix("tools: text")
                if tool
                else "say it in the text of a turn, or take another base",
            )

    def _first_left_out(
        self, messages: Sequence[Message], tools: Tools, *, asked: bool
    ) -> str | None:
        everything = marked(messages, tools)
        if asked:
            context = self._asked(everything.messages, everything.tools)
            return _missing(everything.marks, context)
        parted = self._parted(everything.messages, everything.tools)
        last = len(messages) - 1
        before = [mark for mark in everything.marks if mark.turn < last]
        own = [mark for mark in everything.marks if mark.turn == last]
        return _missing(before, parted.context) or next(
            (mark.what for mark in own if mark.word not in parted.target), None
        )

    def _fix(self, setting: str) -> str:
        return f"set {setting} in bases.{self.identity.name}"


def _missing(marks: Sequence[Mark], text: str) -> str | None:
    """Earlier thoughts may be cut: the model is asked without them."""
    return next((m.what for m in marks if not m.reasoning and m.word not in text), None)
