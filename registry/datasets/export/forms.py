"""Forms that rows leave in: what one row is in a file, and how gapmend reads that file again.

A record is written only if the reader of its format makes the very same content of it. What a form
has no place for (a turn's name, a turn masked from the loss) is refused by name, never left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from registry.datasets.formats.content import Content, Message
from registry.datasets.formats.format import SHAPES, Format, FormatName
from registry.datasets.formats.turns import UnusableError, json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from registry.datasets.formats.content import Content, Kind, Message

FORMATS: Mapping[Kind, FormatName] = {
    "sft": "messages",
    "text": "text",
    "preference": "preference",
    "feedback": "feedback",
}
"""The format that each kind is read with again; LLaMA-Factory's folders have their own."""


@dataclass(frozen=True)
class FormLayout:
    """How rows of one kind are written in one form."""

    record: Callable[[Content], dict[str, Any]]
    reader: Format

    def checked(self, content: Content) -> dict[str, Any]:
        """Return the record of a row.

        Raises:
            UnusableError: this form can't say what the row says.
        """
        record = self.record(content)
        try:
            same = self.reader.content(record) == content
        except UnusableError as error:
            raise UnusableError(f"it would not be read again ({error})") from error
        if not same:
            raise UnusableError("it would be read again as another row")
        return record

    def with_columns(self, record: dict[str, Any], meta: str) -> dict[str, Any]:
        """Return the record with the columns that were kept beside the row.

        Raises:
            UnusableError: one is called like a column that the form has already.
        """
        if meta == "{}":
            return record
        beside = json.loads(meta)
        taken = sorted(beside.keys() & {*record, *self.reader.used.values()})
        if taken:
            raise UnusableError(f"its other column '{taken[0]}' is one that the form has already")
        return record | beside


def layout(form: Literal["parquet", "jsonl", "trl"], kind: Kind) -> FormLayout:
    """Return how a kind is written as Parquet, as JSON lines in OpenAI's form, or for TRL."""
    return FormLayout(_WRITERS[form], Format(SHAPES[FORMATS[kind]]))


# ------------------------------------------------------------------------------ the records


def _openai_record(content: Content) -> dict[str, Any]:
    """Messages as OpenAI's API has them: arguments as text, calls with ids that answers name."""
    record = _parts(content, _openai_turns)
    if content.tools is not None:
        record["tools"] = json.loads(content.tools)
    return record


def _trl_record(content: Content) -> dict[str, Any]:
    """Messages as chat templates read them: arguments as objects; `tools` is text, which TRL reads.

    As lists, the schemas of several functions would be filled up with each other's keys when they
    are loaded.
    """
    record = _parts(content, _trl_turns)
    return record if content.tools is None else record | {"tools": content.tools}


def _parquet_record(content: Content) -> dict[str, Any]:
    """Messages whose columns are the same in every row: arguments as text, `tools` as text."""
    record = _parts(content, _parquet_turns)
    return record if content.tools is None else record | {"tools": content.tools}


def _parts(
    content: Content, turns: Callable[[Sequence[Message]], list[dict[str, Any]]]
) -> dict[str, Any]:
    if content.kind == "text":
        return {"text": content.messages[0].content}
    if content.kind == "preference":
        return {
            "prompt": turns(content.messages),
            "chosen": turns(content.chosen or ()),
            "rejected": turns(content.rejected or ()),
        }
    written = turns(content.messages)
    if content.kind == "feedback":
        return {"prompt": written[:-1], "completion": written[-1:], "label": content.label}
    return {"messages": written}


def _openai_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Write turns; the API wants each call to have an id, and each answer of a tool to name it."""
    written: list[dict[str, Any]] = []
    waiting: list[str] = []
    made = 0
    for message in messages:
        turn = _turn(message)
        if message.tool_calls is not None:
            calls = [_text_arguments(call) for call in _calls(message)]
            waiting = [f"call_{made + number}" for number in range(1, len(calls) + 1)]
            made += len(calls)
            turn["tool_calls"] = [{"id": i, **c} for i, c in zip(waiting, calls, strict=True)]
        elif message.role == "tool" and waiting:
            turn["tool_call_id"] = waiting.pop(0)
        written.append(turn)
    return written


def _trl_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    if any(message.train is not None for message in messages):
        raise UnusableError("a turn is masked from the loss (or in it), which TRL has no key for")
    return [
        _turn(message) | ({} if message.tool_calls is None else {"tool_calls": _calls(message)})
        for message in messages
    ]


def _parquet_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    written = []
    for message in messages:
        turn = _turn(message)
        if message.tool_calls is not None:
            turn["tool_calls"] = [_text_arguments(call) for call in _calls(message)]
            if any(not isinstance(c["function"]["arguments"], str) for c in turn["tool_calls"]):
                raise UnusableError("a tool call's arguments are neither an object nor text")
        written.append(turn)
    return written


def _turn(message: Message) -> dict[str, Any]:
    """Write a turn without its calls; `weight` 0 is OpenAI's word for a turn not to learn."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        turn["name"] = message.name
    if message.train is not None:
        turn["weight"] = int(message.train)
    return turn


def _calls(message: Message) -> list[dict[str, Any]]:
    """Read a turn's calls, each {type, function: {name, arguments}}."""
    calls = json.loads(message.tool_calls or "[]")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not {"name", "arguments"} <= function.keys():
            raise UnusableError("a tool call is not {type, function: {name, arguments}}")
    return list(calls)


def _text_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """Write an object of arguments as JSON text; the reader parses it back."""
    function = call["function"]
    arguments = function["arguments"]
    text = json_text(arguments) if isinstance(arguments, dict) else arguments
    return {"type": "function", "function": {"name": function["name"], "arguments": text}}


_WRITERS: Mapping[str, Callable[[Content], dict[str, Any]]] = {
    "parquet": _parquet_record,
    "jsonl": _openai_record,
    "trl": _trl_record,
}


@dataclass(frozen=True)
class RowGroup:
    """The rows of one kind in one split, and what any of them has."""

    split: str
    kind: Kind
    rows: int
    tools: bool
    calls: bool
    results: bool
    names: bool
    weights: bool

    @property
    def with_tools(self) -> bool:
        """Whether a row has tools, calls one or has its result."""
        return self.tools or self.calls or self.results
