"""Formats: how a record's columns become the content of a row.

A `Format` says which columns it reads; every other column is kept in the row's `meta`, where
prompts and SQL find it. A record that can't become a row raises `UnusableError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from registry.rows import Content, Message
from registry.turns import (
    OPENAI,
    SHAREGPT,
    Dialect,
    UnusableError,
    check_answered,
    check_asked,
    json_text,
    strictly_alternating,
    tools_text,
    turn_of,
    turns_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FormatName = Literal[
    "columns",
    "alpaca",
    "sharegpt",
    "messages",
    "prompt_completion",
    "text",
    "preference",
    "llamafactory",
]

Record = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What one format reads: its parts, the columns they have by default, and the reader."""

    parts: Mapping[str, str | None]  # part -> its default column; None: only if it is mapped
    required: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Content]  # given part -> value


@dataclass(frozen=True)
class Format:
    """A shape with its columns settled.

    `strict` columns are as LLaMA-Factory's `columns` block: a part that it leaves out is absent.
    """

    shape: Shape
    columns: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False

    def column(self, part: str) -> str | None:
        """Return the column that holds `part`."""
        default = None if self.strict else self.shape.parts[part]
        return self.columns.get(part, default)

    @cached_property
    def used(self) -> dict[str, str]:
        """Return part -> column for each part that is read."""
        found = {part: self.column(part) for part in self.shape.parts}
        return {part: column for part, column in found.items() if column is not None}

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Return the columns without which no record is usable."""
        return tuple(self.used[part] for part in self.shape.required if part in self.used)

    def content(self, record: Record) -> Content:
        """Return what the record says.

        Raises:
            UnusableError: it can't become a row.
        """
        return self.shape.read({part: record.get(column) for part, column in self.used.items()})

    def meta(self, record: Record) -> str:
        """Return the other columns as a JSON object, keys sorted.

        Raises:
            UnusableError: a value that JSON can't hold.
        """
        used = self.used.values()
        rest = {key: plain(value) for key, value in record.items() if key not in used}
        return json_text(dict(sorted(rest.items()))) if rest else "{}"


def plain(value: object) -> Any:
    """Return a value of JSON: missing numbers as null, dates and the like as text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        raise UnusableError("a column of raw bytes")
    return str(value)


def detect(record: Record, columns: Mapping[str, str]) -> FormatName | None:
    """Return the format that a first record looks like; None when it looks like none."""
    signs: tuple[tuple[FormatName, set[str]], ...] = (
        ("preference", {"chosen", "rejected"}),
        ("sharegpt", {"conversations"}),
        ("messages", {"messages"}),
        ("alpaca", {"instruction", "output"}),
        ("prompt_completion", {"prompt", "completion"}),
        ("columns", {"input", "output"}),
    )
    for keys in (columns.keys(), record.keys()):  # what the spec maps decides first
        for name, sign in signs:
            if sign <= keys:
                return name
        if set(keys) == {"text"}:
            return "text"
    return None


# ------------------------------------------------------------------- the readers of the shapes


def _with_system(system: object, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if system is None or system == "":
        return messages
    return (Message("system", _string(system, "system")), *messages)


def _string(value: object, part: str) -> str:
    """Return a cell as text: numbers and booleans in JSON's spelling."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json_text(value)
    kind = "missing" if value is None else f"not text: {type(value).__name__}"
    raise UnusableError(f"{part} is {kind}")


def _read_columns(parts: Mapping[str, Any]) -> Content:
    asked = Message("user", _string(parts.get("input"), "input"))
    answered = Message("assistant", _string(parts.get("output"), "output"))
    check_answered((asked, answered))
    return Content("sft", _with_system(parts.get("system"), (asked, answered)))


def _read_text(parts: Mapping[str, Any]) -> Content:
    text = _string(parts.get("text"), "text")
    if not text.strip():
        raise UnusableError("empty text")
    return Content("text", (Message("text", text),))


def _alpaca_question(parts: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the history's turns and the question: instruction, newline, input."""
    turns: list[Message] = []
    for pair in parts.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004 - a pair
            raise UnusableError("history is not a list of pairs")
        turns.append(Message("user", _string(pair[0], "history")))
        turns.append(Message("assistant", _string(pair[1], "history")))
    said = [parts.get("instruction"), parts.get("input")]
    question = "\n".join(_string(text, "instruction") for text in said if text not in (None, ""))
    turns.append(Message("user", question))
    return tuple(turns)


def _read_alpaca(parts: Mapping[str, Any]) -> Content:
    question = _alpaca_question(parts)
    tools = tools_text(parts.get("tools"))
    if "chosen" in parts:
        chosen = (Message("assistant", _string(parts["chosen"], "chosen")),)
        rejected = (Message("assistant", _string(parts.get("rejected"), "rejected")),)
        return _pair(_with_system(parts.get("system"), question), chosen, rejected, tools)
    answered = Message("assistant", _string(parts.get("output"), "output"))
    messages = _with_system(parts.get("system"), (*question, answered))
    check_answered(messages)
    return _judged(messages, tools, parts) if "label" in parts else _sft(messages, tools)


def _read_turns(parts: Mapping[str, Any], *, dialect: Dialect, strict: bool) -> Content:
    turns = turns_of(parts.get("messages"), dialect)
    if strict:
        strictly_alternating(turns.messages)
    system = parts.get("system") if turns.system is None else turns.system
    messages = _with_system(system, turns.messages)
    tools = tools_text(parts.get("tools"))
    if "chosen" in parts:
        chosen = _answer_of(parts["chosen"], dialect)
        rejected = _answer_of(parts.get("rejected"), dialect)
        return _pair(messages, chosen, rejected, tools)
    check_answered(messages)
    return _judged(messages, tools, parts) if "label" in parts else _sft(messages, tools)


def _sft(messages: tuple[Message, ...], tools: str | None) -> Content:
    return Content("sft", messages, tools=tools)


def _judged(messages: tuple[Message, ...], tools: str | None, parts: Mapping[str, Any]) -> Content:
    if not isinstance(parts["label"], bool):
        raise UnusableError("label is not true or false", f"{parts['label']!r}")
    return Content("feedback", messages, label=parts["label"], tools=tools)


def _read_preference(parts: Mapping[str, Any]) -> Content:
    """Read a question with two answers; whole conversations share their question as a prefix."""
    chosen = _answer_of(parts.get("chosen"), OPENAI)
    rejected = _answer_of(parts.get("rejected"), OPENAI)
    prompt = parts.get("prompt")
    if prompt is None:
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        question, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    elif isinstance(prompt, str):
        question = (Message("user", prompt),)
    else:
        turns = turns_of(prompt, OPENAI)
        question = _with_system(turns.system, turns.messages)
    question = _with_system(parts.get("system"), question)
    return _pair(question, chosen, rejected, tools_text(parts.get("tools")))


def _answer_of(value: object, dialect: Dialect) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("assistant", value),)
    if isinstance(value, dict):
        return (turn_of(value, dialect),)
    turns = turns_of(value, dialect)
    return _with_system(turns.system, turns.messages)


def _pair(
    question: tuple[Message, ...],
    chosen: tuple[Message, ...],
    rejected: tuple[Message, ...],
    tools: str | None,
) -> Content:
    check_asked(question)
    check_answered((*question, *chosen))
    check_answered((*question, *rejected))
    if chosen == rejected:
        raise UnusableError("chosen and rejected are the same")
    return Content("preference", question, chosen=chosen, rejected=rejected, tools=tools)


# ------------------------------------------------------------------------------- the table


def turns_shape(dialect: Dialect, *, strict: bool, extra: tuple[str, ...] = ()) -> Shape:
    """Return the shape of conversations; `extra` parts (chosen, rejected, label) are required.

    `strict` wants LLaMA-Factory's order of turns.
    """
    column = "conversations" if strict else "messages"
    parts = {"messages": column} | _same("system", "tools", *extra)
    read = partial(_read_turns, dialect=dialect, strict=strict)
    return Shape(parts, ("messages", *extra), read)


def alpaca_shape(extra: tuple[str, ...] = ()) -> Shape:
    """Return alpaca's shape; `extra` parts are chosen and rejected, or label."""
    plain_parts = ("instruction", "input", "output", "system", "history", "tools")
    answer = () if "chosen" in extra else ("output",)
    return Shape(_same(*plain_parts, *extra), ("instruction", *answer, *extra), _read_alpaca)


def _same(*parts: str) -> dict[str, str | None]:
    return {part: part for part in parts}


def _completion(parts: Mapping[str, Any]) -> Content:
    """Read prompt and completion: texts, or TRL's lists of messages."""
    prompt, completion = parts.get("prompt"), parts.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        whole = {"messages": [*prompt, *completion], "system": parts.get("system")}
        return _read_turns(whole | {"tools": parts.get("tools")}, dialect=OPENAI, strict=False)
    return _read_columns({"input": prompt, "output": completion, "system": parts.get("system")})


SHAPES: Mapping[str, Shape] = {
    "columns": Shape(
        _same("input", "output") | {"system": None}, ("input", "output"), _read_columns
    ),
    "alpaca": alpaca_shape(),
    "sharegpt": turns_shape(SHAREGPT, strict=True),
    "messages": turns_shape(OPENAI, strict=False),
    "prompt_completion": Shape(
        _same("prompt", "completion", "system", "tools"), ("prompt", "completion"), _completion
    ),
    "text": Shape(_same("text"), ("text",), _read_text),
    "preference": Shape(
        _same("prompt", "chosen", "rejected", "system", "tools"),
        ("chosen", "rejected"),
        _read_preference,
    ),
}
"""The formats that a file can be in; `llamafactory` is a folder of them (registry/llamafactory)."""
