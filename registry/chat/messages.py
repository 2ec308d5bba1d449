"""Messages as chat templates want them, and marks by which it is seen what a template leaves out.

Templates differ in what they take: a call's arguments as an object or as JSON, a turn that only
calls with an empty text or with none, contents as text or as parts, calls with ids or without.
A `Dialect` is one such choice. Which one a base's template wants is found by trying: the first by
which everything is rendered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count, product
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from registry.chat.thoughts import thought_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

Message: TypeAlias = "Mapping[str, Any]"
Tools: TypeAlias = "Sequence[Mapping[str, Any]] | None"

THOUGHT_ENDS = "</think>"
"""Where a thought that stands in the text of an answer ends: many templates cut up to it."""


class StoredMessage(Protocol):
    """A turn as rows keep it."""

    @property
    def role(self) -> str:
        """Who speaks."""

    @property
    def content(self) -> str:
        """What is said."""

    @property
    def tool_calls(self) -> str | None:
        """A JSON list."""

    @property
    def name(self) -> str | None:
        """Of a tool."""


def as_turn(message: StoredMessage) -> dict[str, Any]:
    """Return a row's message as `Chat` takes it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        reasoning, turn["content"] = thought_of(message.content)
        if reasoning:
            turn["reasoning"] = reasoning
    if message.tool_calls is not None:
        turn["tool_calls"] = json.loads(message.tool_calls)
    if message.name is not None:
        turn["name"] = message.name
    return turn


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to write messages for a template.

    Attributes:
        arguments: of calls, as an object or as JSON.
        silent: the content of a turn that only calls.
        parts: contents as lists of parts, as templates for pictures want them.
        ids: calls and results without an id get one.
    """

    arguments: Literal["object", "text"] = "object"
    silent: Literal["empty", "none", "absent"] = "empty"
    parts: bool = False
    ids: bool = False


PLAIN = Dialect()


def dialects(messages: Sequence[Message]) -> Iterator[Dialect]:
    """Yield what to try for these messages, the usual first."""
    calls = any(message.get("tool_calls") for message in messages)
    results = any(message["role"] == "tool" for message in messages)
    for parts in (False, True):
        if not calls and not results:
            yield Dialect(parts=parts)
            continue
        for ids, arguments, silent in product(
            (False, True), ("object", "text"), ("empty", "none", "absent")
        ):
            yield Dialect(arguments, silent, parts, ids)  # type: ignore[arg-type]


class _Arguments(dict[str, Any]):
    """Arguments that a template which prints them as they are prints as JSON, not as Python."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)

    __repr__ = __str__


def spoken(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """Return messages as a template reads them.

    Args:
        messages: role, content, and where there are any `tool_calls`, `tool_call_id`, `name` and
            `reasoning`.
        dialect: how they are written.
    """
    numbers, results = count(1), count(1)
    return [_spoken(message, dialect, numbers, results) for message in messages]


def _spoken(
    message: Message, dialect: Dialect, numbers: Iterator[int], results: Iterator[int]
) -> dict[str, Any]:
    content = message.get("content") or ""
    made: dict[str, Any] = {"role": message["role"]}
    calls = message.get("tool_calls")
    if content or not calls or dialect.silent == "empty":
        made["content"] = [{"type": "text", "text": content}] if dialect.parts else content
    elif dialect.silent == "none":
        made["content"] = None
    if reasoning := message.get("reasoning"):
        made |= {"reasoning_content": reasoning, "thinking": reasoning}
    made |= {key: message[key] for key in ("name", "tool_call_id") if message.get(key)}
    if dialect.ids and message["role"] == "tool":
        made.setdefault("tool_call_id", _call_id(next(results)))
    if calls:
        made["tool_calls"] = [_call(call, dialect, numbers) for call in calls]
    return made


def _call(call: Mapping[str, Any], dialect: Dialect, numbers: Iterator[int]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments", {})
    if isinstance(arguments, dict):
        written = json.dumps(arguments, ensure_ascii=False)
        arguments = written if dialect.arguments == "text" else _Arguments(arguments)
    made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if call.get("id"):
        return {"id": call["id"], **made}
    return {"id": _call_id(next(numbers)), **made} if dialect.ids else made


def _call_id(number: int) -> str:
    return f"call{number:05}"  # nine letters and digits, as Mistral's templates want


def joined(messages: Sequence[Message]) -> Sequence[Message]:
    """Return messages with the system text at the head of the first question.

    Where no question follows it, they stay as they are.
    """
    system = [str(m["content"]) for m in messages if m["role"] == "system"]
    rest = [m for m in messages if m["role"] != "system"]
    if not system or not rest or rest[0]["role"] != "user":
        return messages
    return [{**rest[0], "content": "\n\n".join([*system, str(rest[0]["content"])])}, *rest[1:]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A word that stands nowhere else, put where something is said.

    Attributes:
        word: it.
        what: is said there, for people.
        turn: whose turn it is, from 0; -1 for a tool.
        reasoning: it is of a thought: templates cut those of earlier turns.
    """

    word: str
    what: str
    turn: int
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Marked:
    """Messages and tools in which everything that is said has a mark."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    marks: tuple[Mark, ...]


def marked(messages: Sequence[Message], tools: Tools) -> Marked:
    """Mark both ends of every content, and every thought, call, argument and tool."""
    marker = _Marker()
    turns = [marker.turn(number, message) for number, message in enumerate(messages)]
    offered = [marker.tool(number, tool) for number, tool in enumerate(tools or (), start=1)]
    return Marked(turns, offered or None, tuple(marker.marks))


class _Marker:
    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def word(self, what: str, turn: int, *, reasoning: bool = False) -> str:
        word = f"Qz{len(self.marks)}zQ"
        self.marks.append(Mark(word, what, turn, reasoning))
        return word

    def turn(self, number: int, message: Message) -> dict[str, Any]:
        made = dict(message)
        role, where = message["role"], f"of turn {number + 1}"
        if content := message.get("content"):
            thinks = role == "assistant" and THOUGHT_ENDS in content
            head = self.word(
                f"the thought {where}" if thinks else f"the {role}'s text {where}",
                number,
                reasoning=thinks,
            )
            tail = self.word(f"the {role}'s text {where}", number)
            made["content"] = f"{head}{content}{tail}"
        if reasoning := message.get("reasoning"):
            word = self.word(f"the reasoning {where}", number, reasoning=True)
            made["reasoning"] = f"{reasoning}{word}"
        if calls := message.get("tool_calls"):
            made["tool_calls"] = [self.call(f"a call {where}", number, call) for call in calls]
        return made

    def call(self, what: str, turn: int, call: Mapping[str, Any]) -> dict[str, Any]:
        function = call["function"]
        arguments = function.get("arguments", {})
        if isinstance(arguments, dict):
            arguments = {
                f"{key}{self.word(f'an argument of {what}', turn)}": value
                for key, value in arguments.items()
            }
        name = f"{function['name']}{self.word(what, turn)}"
        return {**call, "function": {**function, "name": name, "arguments": arguments}}

    def tool(self, number: int, tool: Mapping[str, Any]) -> dict[str, Any]:
        function = tool.get("function")
        if not isinstance(function, dict) or "name" not in function:
            return dict(tool)
        name = f"{function['name']}{self.word(f'tool {number}', -1)}"
        return {**tool, "function": {**function, "name": name}}


def shape(messages: Sequence[Message], tools: Tools) -> Hashable:
    """Return what decides how a template treats messages: who speaks, and what kinds of things."""
    return (tuple(map(_turn_shape, messages)), bool(tools))


def _turn_shape(message: Message) -> Hashable:
    content = str(message.get("content") or "")
    calls = [
        isinstance(call["function"].get("arguments", {}), dict)
        for call in message.get("tool_calls") or ()
    ]
    return (
        message["role"],
        bool(content),
        THOUGHT_ENDS in content,
        tuple(calls),
        bool(message.get("reasoning")),
        bool(message.get("name")),
        bool(message.get("tool_call_id")),
    )


def without_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Return messages without their reasoning."""
    return [{k: v for k, v in m.items() if k != "reasoning"} for m in messages]
