"""Rows as LLaMA-Factory's data folders have them: alpaca or sharegpt, ranked pairs, thumbs.

A version is alpaca unless a row has tools or calls them. Every record has every column that its
entry names, empty where there is nothing: LLaMA-Factory fails on a column that no record has.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.datasets.export.forms import FormLayout
from registry.datasets.formats.turns import UnusableError, json_text
from registry.datasets.sources.llamafactory import read_entry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.datasets.formats.content import Content, Kind, Message

_ALPACA = {"prompt": "instruction", "query": "input", "system": "system", "history": "history"}
_TURNS = {"messages": "conversations", "system": "system", "tools": "tools"}
_ANSWERS: Mapping[Kind, Mapping[str, str]] = {
    "sft": {"response": "output"},
    "feedback": {"response": "output", "kto_tag": "label"},
    "preference": {"chosen": "chosen", "rejected": "rejected"},
}
_TAGS = {"user": "human", "tool": "observation", "assistant": "gpt"}


def entry(file_name: str, kind: Kind, *, with_tools: bool) -> dict[str, Any]:
    """Return the entry of dataset_info.json for one file.

    Raises:
        UnusableError: plain text, which gapmend reads from no such entry.
    """
    if kind == "text":
        raise UnusableError("plain text has no entry in a LLaMA-Factory folder")
    columns: dict[str, str] = {**(_TURNS if with_tools else _ALPACA), **_ANSWERS[kind]}
    if with_tools:
        columns.pop("response", None)
    made: dict[str, Any] = {
        "file_name": file_name,
        "formatting": "sharegpt" if with_tools else "alpaca",
    }
    if kind == "preference":
        made["ranking"] = True
    return made | {"columns": columns}


def layout(folder: Path, name: str, *, with_tools: bool) -> FormLayout:
    """Return how rows are written to the file of the entry `name`, which is in `folder` already."""
    record = _sharegpt_record if with_tools else _alpaca_record
    return FormLayout(record, read_entry(folder, name).format)


def _alpaca_record(content: Content) -> dict[str, Any]:
    system, turns = _head(content)
    asked = turns if content.kind == "preference" else turns[:-1]
    roles = [turn.role for turn in asked]
    if roles != [*(["user", "assistant"] * (len(roles) // 2)), "user"]:
        raise UnusableError("turns don't alternate between user and assistant")
    *history, question = [turn.content for turn in asked]
    record: dict[str, Any] = {"instruction": question, "input": ""}
    if content.kind == "preference":
        for part in ("chosen", "rejected"):
            record[part] = _only(content, part).content
    else:
        record["output"] = turns[-1].content
    if content.kind == "feedback":
        record["label"] = content.label
    pairs = [list(pair) for pair in zip(history[::2], history[1::2], strict=True)]
    return record | {"system": system, "history": pairs}


def _sharegpt_record(content: Content) -> dict[str, Any]:
    system, turns = _head(content)
    record: dict[str, Any] = {"conversations": [_turn(turn) for turn in turns]}
    if content.kind == "preference":
        record |= {part: _turn(_only(content, part)) for part in ("chosen", "rejected")}
    if content.kind == "feedback":
        record["label"] = content.label
    return record | {"system": system, "tools": content.tools or ""}


def _head(content: Content) -> tuple[str, tuple[Message, ...]]:
    """Return the system text and the turns after it; whoever reads them checks their order.

    Raises:
        UnusableError: a turn says more than role and text, or the system speaks later.
    """
    for turn in (*content.messages, *(content.chosen or ()), *(content.rejected or ())):
        if turn.name is not None:
            raise UnusableError("a turn has a name, which LLaMA-Factory has no key for")
        if turn.train is not None:
            raise UnusableError(
                "a turn is masked from the loss (or in it), which LLaMA-Factory has no key for"
            )
    first = content.messages[0]
    turns = content.messages[1:] if first.role == "system" else content.messages
    if any(turn.role not in _TAGS for turn in turns):
        raise UnusableError("the system speaks after the first turn")
    return first.content if first.role == "system" else "", turns


def _only(content: Content, part: str) -> Message:
    answer: tuple[Message, ...] = getattr(content, part)
    if len(answer) != 1 or answer[0].role != "assistant":
        raise UnusableError(f"{part} is several turns, and LLaMA-Factory has room for one")
    return answer[0]


def _turn(message: Message) -> dict[str, str]:
    if message.tool_calls is None:
        return {"from": _TAGS[message.role], "value": message.content}
    if message.content:
        raise UnusableError("a turn has text and calls functions, which LLaMA-Factory can't say")
    functions = [call["function"] for call in json.loads(message.tool_calls)]
    value = functions[0] if len(functions) == 1 else functions
    return {"from": "function_call", "value": json_text(value)}
