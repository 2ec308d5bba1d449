"""Shapes: the parts that a format has, and how their values become the content of a row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.datasets.formats.content import Content, Message
from registry.datasets.formats.turns import (
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


@dataclass(frozen=True)
class Shape:
    """What one format reads: its parts, the columns they have by default, and the reader.

    `dialect` is how turns are written, where a part may be a list of them.
    """

    parts: Mapping[str, str | None]  # part -> its default column; None: only if it is mapped
    required: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Content]  # given part -> value
    dialect: Dialect | None = None


# ------------------------------------------------------------------------------ single texts


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


# ------------------------------------------------------------------------------------ alpaca


def _alpaca_question(parts: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the history's turns and the question: instruction, newline, input."""
    turns: list[Message] = []
    history = parts.get("history") or ()
    if not isinstance(history, list | tuple):
        raise UnusableError("history is not a list of pairs")
    for pair in history:
        if not isinstance(pair, list | tuple) or len(pair) != 2:  # noqa: PLR2004 - a pair
            raise UnusableError("history is not a list of pairs")
        turns.append(Message("user", _string(pair[0], "history")))
        turns.append(Message("assistant", _string(pair[1], "history")))
    said = (parts.get("instruction"), parts.get("input"))
    texts = [_string(text, "instruction") for text in said if text is not None and text != ""]
    turns.append(Message("user", "\n".join(texts)))
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
    if "label" not in parts:
        return Content("sft", messages, tools=tools)
    return _judged(messages, tools, real_boolean(parts["label"]))


# ----------------------------------------------------------------------------- conversations


def _read_turns(parts: Mapping[str, Any], *, dialect: Dialect) -> Content:
    messages = _conversation(parts, dialect)
    check_answered(messages)
    return Content("sft", messages, tools=_tools(parts))


def _read_strict_turns(
    parts: Mapping[str, Any], *, dialect: Dialect, several_results: bool = False
) -> Content:
    """Read turns in LLaMA-Factory's order, with its pairs and its verdicts."""
    turns = turns_of(parts.get("messages"), dialect)
    strictly_alternating(turns.messages, several_results=several_results)
    system = parts.get("system") if turns.system is None else turns.system
    messages = _with_system(system, turns.messages)
    if "chosen" in parts:
        if messages and messages[-1].role not in ("user", "tool"):
            raise UnusableError("turns don't alternate", "an answer stands before the two answers")
        chosen = _answer_of(parts["chosen"], dialect, "chosen")
        rejected = _answer_of(parts.get("rejected"), dialect, "rejected")
        return _pair(messages, chosen, rejected, _tools(parts))
    check_answered(messages)
    if "label" not in parts:
        return Content("sft", messages, tools=_tools(parts))
    return _judged(messages, _tools(parts), real_boolean(parts["label"]))


def _conversation(parts: Mapping[str, Any], dialect: Dialect) -> tuple[Message, ...]:
    """Return the part `messages`; its leading system turn goes before the system column."""
    turns = turns_of(parts.get("messages"), dialect)
    system = parts.get("system") if turns.system is None else turns.system
    return _with_system(system, turns.messages)


def _read_completion(parts: Mapping[str, Any], *, dialect: Dialect) -> Content:
    """Read prompt and completion: each a text, or a list of messages as TRL has them."""
    messages = _asked_and_answered(parts, dialect)
    check_answered(messages)
    return Content("sft", messages, tools=_tools(parts))


def _read_feedback(parts: Mapping[str, Any], *, dialect: Dialect) -> Content:
    """Read an answer with its verdict: whole messages, or prompt and completion."""
    if parts.get("messages") is not None:
        messages = _conversation(parts, dialect)
    else:
        messages = _asked_and_answered(parts, dialect)
    check_answered(messages)
    return _judged(messages, _tools(parts), verdict(parts.get("label")))


def _asked_and_answered(parts: Mapping[str, Any], dialect: Dialect) -> tuple[Message, ...]:
    question = _question_of(parts.get("prompt"), dialect)
    answered = _without(question, _answer_of(parts.get("completion"), dialect, "completion"))
    if question and question[0].role == "system":
        return (*question, *answered)
    return (*_with_system(parts.get("system"), question), *answered)


def _read_preference(parts: Mapping[str, Any], *, dialect: Dialect) -> Content:
    """Read a question with two answers; whole conversations share their question as a prefix."""
    chosen = _answer_of(parts.get("chosen"), dialect, "chosen")
    rejected = _answer_of(parts.get("rejected"), dialect, "rejected")
    prompt = parts.get("prompt")
    if prompt is None:
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        question, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    else:
        question = _question_of(prompt, dialect)
        if not question or question[0].role != "system":
            question = (*(turn for turn in chosen[:1] if turn.role == "system"), *question)
        chosen, rejected = (_without(question, answer) for answer in (chosen, rejected))
    if not question or question[0].role != "system":
        question = _with_system(parts.get("system"), question)
    return _pair(question, chosen, rejected, _tools(parts))


def _without(question: tuple[Message, ...], answer: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return an answer without the question, or its last turn, which files repeat at its head."""
    asked, said = (
        [turn for turn in turns if turn.role != "system"] for turns in (question, answer)
    )
    for repeated in (asked, asked[-1:]):
        if len(said) > len(repeated) and all(map(_same_turn, repeated, said)):
            return tuple(said[len(repeated) :])
    return tuple(said)


def _same_turn(one: Message, other: Message) -> bool:
    return one.role == other.role and one.content.strip() == other.content.strip()


def _question_of(value: object, dialect: Dialect) -> tuple[Message, ...]:
    """Return a prompt: a text is what the user says."""
    if isinstance(value, list):
        turns = turns_of(value, dialect)
        return _with_system(turns.system, turns.messages)
    return (Message("user", _string(value, "prompt")),)


def _answer_of(value: object, dialect: Dialect, part: str) -> tuple[Message, ...]:
    if isinstance(value, dict):
        return (turn_of(value, dialect),)
    if isinstance(value, list):
        turns = turns_of(value, dialect)
        return _with_system(turns.system, turns.messages)
    return (Message("assistant", _string(value, part)),)


def _tools(parts: Mapping[str, Any]) -> str | None:
    """Return the tools: OpenAI's `tools`, or `functions` as they were called before."""
    return tools_text(parts.get("tools")) or tools_text(parts.get("functions"))


# ------------------------------------------------------------------------ pairs and verdicts


def verdict(value: object) -> bool:
    """Return a thumb up or down: true or false, also as the text or the 1 or 0 of a table.

    Raises:
        UnusableError: it is neither.
    """
    said = value.strip().lower() if isinstance(value, str) else value
    if said in ("true", "1", 1):
        return True
    if said in ("false", "0", 0):
        return False
    raise UnusableError("label is not true or false", f"{value!r}"[:80])


def real_boolean(value: object) -> bool:
    """Return LLaMA-Factory's verdict, which has to be a boolean of JSON.

    Raises:
        UnusableError: it is none.
    """
    if not isinstance(value, bool):
        raise UnusableError("label is not true or false", f"{value!r}"[:80])
    return value


def _judged(messages: tuple[Message, ...], tools: str | None, good: bool) -> Content:  # noqa: FBT001 - the third of three parts
    return Content("feedback", messages, label=good, tools=tools)


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


# --------------------------------------------------------------------------------- the table


def conversational(dialect: Dialect) -> dict[str, Shape]:
    """Return the shapes whose turns may be written in another dialect than OpenAI's."""
    tools = _same("system", "tools") | {"functions": "functions"}
    return {
        "messages": Shape(
            _same("messages") | tools,
            ("messages",),
            partial(_read_turns, dialect=dialect),
            dialect,
        ),
        "prompt_completion": Shape(
            _same("prompt", "completion") | tools,
            ("prompt", "completion"),
            partial(_read_completion, dialect=dialect),
            dialect,
        ),
        "preference": Shape(
            _same("prompt", "chosen", "rejected") | tools,
            ("chosen", "rejected"),
            partial(_read_preference, dialect=dialect),
            dialect,
        ),
        "feedback": Shape(
            _same("prompt", "completion", "messages", "label") | tools,
            ("label",),
            partial(_read_feedback, dialect=dialect),
            dialect,
        ),
    }


def strict_shape(
    dialect: Dialect, *, extra: tuple[str, ...] = (), several_results: bool = False
) -> Shape:
    """Return the shape of conversations in LLaMA-Factory's order of turns.

    Args:
        dialect: how its turns are written.
        extra: required parts: chosen and rejected, or label.
        several_results: results of tools may follow each other (its `openai` formatting).
    """
    parts = {"messages": "conversations"} | _same("system", "tools", *extra)
    read = partial(_read_strict_turns, dialect=dialect, several_results=several_results)
    return Shape(parts, ("messages", *extra), read, dialect)


def alpaca_shape(extra: tuple[str, ...] = ()) -> Shape:
    """Return alpaca's shape; `extra` parts are chosen and rejected, or label."""
    plain_parts = ("instruction", "input", "output", "system", "history", "tools")
    answer = () if "chosen" in extra else ("output",)
    return Shape(_same(*plain_parts, *extra), ("instruction", *answer, *extra), _read_alpaca)


def _same(*parts: str) -> dict[str, str | None]:
    return {part: part for part in parts}


TEXT = Shape(_same("text"), ("text",), _read_text)

SHAPES: Mapping[str, Shape] = {
    "columns": Shape(
        _same("input", "output") | {"system": None}, ("input", "output"), _read_columns
    ),
    "alpaca": alpaca_shape(),
    "sharegpt": strict_shape(SHAREGPT),
    "text": TEXT,
    **conversational(OPENAI),
}
"""The formats that a file can be in; `llamafactory` is a folder of them (registry/llamafactory)."""

CONVERSATIONAL = tuple(conversational(OPENAI))
"""The formats whose turns the spec may describe (`turns`, `roles`)."""
