"""Turns of a conversation: from the dialects that data comes in to `Message`.

Whatever can't become a turn raises `UnusableError`, whose reason becomes the row's reject.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from registry.chat.thoughts import with_thought
from registry.datasets.formats.content import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class UnusableError(Exception):
    """A row that can't be taken: `reason` is counted, `detail` tells this one apart."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep both parts."""
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True)
class Dialect:
    """How one source writes turns: the keys of role and text, and what its roles mean.

    `train_key` holds whether an assistant's turn is trained; None: OpenAI's `weight`, 0 or 1.
    """

    role_key: str
    content_key: str
    roles: Mapping[str, str]  # its word -> system, user, assistant, call or tool
    train_key: str | None = None

    @cached_property
    def spoken(self) -> Mapping[str, str]:
        """The words of a turn that is its text, if that is written under two keys of their own."""
        keys = {self.role_key, self.content_key}
        if len(keys) != _PLAIN or not keys.isdisjoint((*_READ, self.train_key)):
            return {}
        roles = self.roles.items()
        return {word: role for word, role in roles if role in ("system", "user", "assistant")}


_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_PLAIN = 2  # keys of a turn that has a role and a text and nothing else
_REASONING = ("reasoning_content", "reasoning", "thinking")
# Beside its own keys.
_READ = ("tool_calls", "function_call", "tool_call_id", "name", "weight", *_REASONING)

SHAREGPT = Dialect(
    "from",
    "value",
    {
        "system": "system",
        "human": "user",
        "user": "user",
        "gpt": "assistant",
        "assistant": "assistant",
        "model": "assistant",
        "chatgpt": "assistant",
        "function_call": "call",
        "observation": "tool",
        "tool": "tool",
    },
)

OPENAI = Dialect(
    "role",
    "content",
    {
        "system": "system",
        "developer": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "gpt": "assistant",
        "tool": "tool",
        "function": "tool",
    },
)


class Turns(msgspec.Struct, frozen=True, gc=False):
    """The turns of one value: the leading system text apart, as it may override a column."""

    system: str | None
    messages: tuple[Message, ...] = ()


def turns_of(value: object, dialect: Dialect) -> Turns:
    """Read a list of turns (or a JSON text of one).

    Raises:
        UnusableError: not a list of turns, an unknown role, or a text that is none.
    """
    if isinstance(value, str):
        value = parse_json(value, "the conversation")
    if not isinstance(value, list) or not value:
        raise UnusableError("no turns")
    messages = _plain(value, dialect)
    if messages is None:
        messages = [turn_of(turn, dialect) for turn in value]
        if any(message.role == "tool" for message in messages):
            messages = _results_in_order(value, messages)
    if messages[0].role == "system":
        return Turns(messages[0].content, tuple(messages[1:]))
    return Turns(None, tuple(messages))


def _plain(turns: Sequence[Any], dialect: Dialect) -> list[Message] | None:
    """Read turns as `turn_of` does, at once; None where one is more than a role and a text."""
    roles, role_key, content_key = dialect.spoken, dialect.role_key, dialect.content_key
    found = []
    try:
        for turn in turns:
            text = turn[content_key]
            if len(turn) != _PLAIN or not isinstance(text, str):
                return None
            found.append(Message(roles[turn[role_key]], text))
    except (KeyError, TypeError):
        return None
    return found


def turn_of(turn: object, dialect: Dialect) -> Message:
    """Read one turn.

    Raises:
        UnusableError: as `turns_of`.
    """
    if not isinstance(turn, dict):
        raise UnusableError("a turn is not an object", type(turn).__name__)
    said = turn.get(dialect.role_key)
    role = dialect.roles.get(said) if isinstance(said, str) else None
    if role is None:
        raise UnusableError("unknown role", f"{said!r}")
    content = turn.get(dialect.content_key)
    if role == "call":
        return Message("assistant", "", tool_calls=calls_from_text(_text(content)))
    calls = _openai_calls(turn) if role == "assistant" else None
    name = turn.get("name")
    text = "" if content is None and calls is not None else _text(content)
    if role == "assistant":
        text = with_thought(_reasoning(turn), text)
    return Message(
        role,
        text,
        tool_calls=calls,
        name=name if isinstance(name, str) and name else None,
        train=_trained(turn, dialect.train_key) if role == "assistant" else None,
    )


def _reasoning(turn: Mapping[str, Any]) -> str:
    """Read the thought before an answer, under whichever of its usual keys it stands."""
    said = next((turn[key] for key in _REASONING if turn.get(key)), "")
    return _text(said)


def keys_left_out(turn: object, dialect: Dialect) -> frozenset[str]:
    """Return the keys of a turn that say something and have no place in a row."""
    if not isinstance(turn, dict):
        return frozenset()
    read = {dialect.role_key, dialect.content_key, dialect.train_key, *_READ}
    return frozenset(str(key) for key, value in turn.items() if key not in read and value)


def strictly_alternating(messages: Sequence[Message], *, several_results: bool) -> None:
    """Check LLaMA-Factory's order: user or tool, then assistant, and again.

    Args:
        messages: the turns, without a leading system text.
        several_results: results of tools that follow each other count as one turn.

    Raises:
        UnusableError: a turn is out of order.
    """
    if [message.role for message in messages] == ["user", "assistant"] * (len(messages) // 2):
        return
    if several_results:
        messages = [
            message
            for before, message in zip((None, *messages), messages, strict=False)
            if before is None or not before.role == message.role == "tool"
        ]
    for index, message in enumerate(messages):
        expected = ("user", "tool") if index % 2 == 0 else ("assistant",)
        if message.role not in expected:
            raise UnusableError("turns don't alternate", f"turn {index + 1} is {message.role}'s")


def check_answered(messages: Sequence[Message]) -> None:
    """Check that something is asked and that the last turn answers it.

    Raises:
        UnusableError: no question, no answer, or an empty one.
    """
    if not messages or messages[-1].role != "assistant":
        raise UnusableError("no answer: the last turn is not the assistant's")
    if not messages[-1].content.strip() and messages[-1].tool_calls is None:
        raise UnusableError("empty answer")
    check_asked(messages[:-1])


def check_asked(messages: Sequence[Message]) -> None:
    """Check that some user turn says something.

    Raises:
        UnusableError: there is no user turn, or all are empty.
    """
    for message in messages:
        if message.role == "user" and message.content.strip():
            return
    raise UnusableError("empty question")


def calls_from_text(text: str) -> str:
    """Turn a function call's JSON (one object or a list) into OpenAI's list of tool calls.

    Raises:
        UnusableError: not JSON, or without a name.
    """
    value = parse_json(text, "the function call")
    return _calls(value if isinstance(value, list) else [value])


def tools_text(value: object) -> str | None:
    """Turn function schemas (a list or its JSON text) into a JSON list; None for an empty one.

    Raises:
        UnusableError: not JSON, or not a list of objects.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = parse_json(value, "tools") if value.strip() else []
    if value == [] or value is None:
        return None
    schemas: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(schema, dict) for schema in schemas):
        raise UnusableError("tools are not a list of function schemas")
    return json_text(
        [s if "function" in s else {"type": "function", "function": s} for s in schemas]
    )


def parse_json(text: str, what: str) -> Any:
    """Parse a JSON text inside a column.

    Raises:
        UnusableError: it is not JSON; `what` names it.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"{what}: not JSON", str(error)) from error


def json_text(value: object) -> str:
    """Write JSON for people and templates: characters as they are, keys in their order."""
    try:
        return _WRITER.encode(value)
    except (ValueError, TypeError) as error:
        raise UnusableError("a value that JSON can't hold", str(error)) from error


def _openai_calls(turn: Mapping[str, Any]) -> str | None:
    calls = turn.get("tool_calls")
    if isinstance(calls, str):
        calls = parse_json(calls, "tool_calls")
    if not calls and turn.get("function_call"):
        calls = [turn["function_call"]]
    if not calls:
        return None
    if not isinstance(calls, list):
        raise UnusableError("tool_calls is not a list")
    return _calls(calls)


def _calls(calls: Sequence[object]) -> str:
    """Write calls in one form: arguments as an object where they are one."""
    made = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else call
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UnusableError("a function call without a name")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _object_or_text(arguments)
        described = {"name": function["name"], "arguments": arguments}
        made.append({"type": "function", "function": described})
    return json_text(made)


def _object_or_text(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part(part) for part in content)
    raise UnusableError("a turn without text", type(content).__name__)


def _part(part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise UnusableError("a part of a turn is not text", f"{kind}")


def _trained(turn: Mapping[str, Any], key: str | None) -> bool | None:
    """Read whether an assistant's turn is in the loss: OpenAI's `weight`, or the key named."""
    said = turn.get(key or "weight")
    if said is None:
        return None
    if said not in (0, 1):  # true and false are 1 and 0 to Python
        raise UnusableError(f"{key or 'weight'} is not 0 or 1", f"{said!r}")
    return bool(said)


def _results_in_order(turns: Sequence[Any], messages: Sequence[Message]) -> list[Message]:
    """Put the results of several calls in the order of the calls that their ids name.

    Ids are not kept, so that the order alone says which result is whose.
    """
    ordered = list(messages)
    at = 0
    while at < len(messages):
        end = at + 1
        while end < len(messages) and messages[end].role == "tool":
            end += 1
        asked = _ids_of_calls(turns[at])
        told = [turn.get("tool_call_id") for turn in turns[at + 1 : end]]
        if all(one in asked for one in told):
            places = sorted(range(len(told)), key=lambda place: asked.index(told[place]))
            ordered[at + 1 : end] = [messages[at + 1 + place] for place in places]
        at = end
    return ordered


def _ids_of_calls(turn: Mapping[str, Any]) -> list[Any]:
    calls = turn.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [call["id"] for call in calls if isinstance(call, dict) and call.get("id") is not None]
