"""Prompts: filling templates, the arms that a capability tries, and their examples.

Examples (shots) come from train and are earlier turns of the conversation. They are fixed by hash:
the same for every item, whatever subset of items is run, and never the item or its near-duplicate.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.capability import Item, PromptsSpec
    from registry.rows import Message

ArmKind = Literal["zero_shot", "few_shot", "cot"]

LABELS = "labels"
"""The name that a template gives the list of labels by, unless the data has such a column."""

_NAME = r"[^\W\d][\w.-]*"
_PLACE = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to ask: a template for the user turn, a number of examples, a system turn."""

    name: str
    template: str
    shots: int
    system: str | None
    kind: ArmKind


def arms_of(prompts: PromptsSpec) -> tuple[Arm, ...]:
    """Return the arms of a spec: zero-shot first, each number of examples, chain of thought."""
    plain, system = prompts.zero_shot, prompts.system
    arms = [Arm("zero_shot", plain, 0, system, "zero_shot")]
    arms += [
        Arm(f"few_shot_{shots}", plain, shots, system, "few_shot")
        for shots in dict.fromkeys(prompts.few_shot)
    ]
    if prompts.cot is not None:
        arms.append(Arm("cot", prompts.cot, 0, system, "cot"))
    return tuple(arms)


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Replace each `{name}` by its field, in one pass, so that braces in data stay data.

    Only a plain name in single braces is a place to fill; `{{name}}` stands for the text `{name}`
    and any other brace for itself.

    Raises:
        UserError: the fields have no such name.
    """

    def value(match: re.Match[str]) -> str:
        literal, name = match.groups()
        if literal is not None:
            return f"{{{literal}}}"
        if name in fields:
            return fields[name]
        raise UserError(
            f"the prompt names {{{name}}}, which is not a column of the data",
            expected=f"one of {', '.join(sorted(fields))}",
            fix=f"write {{{{{name}}}}} if the text {{{name}}} is meant",
        )

    return _PLACE.sub(value, template)


def choose_shots(train: Sequence[Item], arm: Arm, *, seed: int) -> tuple[Item, ...]:
    """Return the examples of an arm, in the order they are shown, and one to spare.

    They are the items whose hash with the seed is smallest, one of each duplicate cluster. The
    spare one stands in where an item is itself an example or a near-duplicate of one.

    Raises:
        UserError: train has too few distinct items.
    """
    if arm.shots == 0:
        return ()
    chosen: dict[int, Item] = {}
    usable = (item for item in train if not item.history and item.text is None)
    for item in sorted(usable, key=lambda item: _shot_order(item, seed)):
        if len(chosen) > arm.shots:
            break
        chosen.setdefault(item.cluster, item)
    if len(chosen) < arm.shots:
        raise UserError(
            f"{arm.name} needs {arm.shots} examples, but train has {len(chosen)} that differ",
            expected="single questions with answers in the train split",
            fix="ask for fewer in prompts.few_shot, or add rows to train",
        )
    return tuple(chosen.values())


def render_messages(
    arm: Arm, item: Item, shots: Sequence[Item], labels: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the turns that ask `item`: system, examples, the item's history, the question.

    Args:
        arm: how to ask.
        item: what to ask.
        shots: what `choose_shots` gave for this arm.
        labels: fill `{labels}` in templates.

    Raises:
        UserError: a template names a column that the item hasn't.
    """
    turns = [_as_dict(turn) for turn in item.history]
    system = [turn for turn in turns if turn["role"] == "system"]
    if arm.system is not None:
        system = [{"role": "system", "content": fill(arm.system, _fields(item, labels))}]
    shown = [shot for shot in shots if shot.cluster != item.cluster][: arm.shots]
    examples = [
        turn
        for shot in shown
        for turn in (_question(arm, shot, labels), {"role": "assistant", "content": shot.expected})
    ]
    earlier = [turn for turn in turns if turn["role"] != "system"]
    return [*system, *examples, *earlier, _question(arm, item, labels)]


def _question(arm: Arm, item: Item, labels: Sequence[str]) -> dict[str, Any]:
    return {"role": "user", "content": fill(arm.template, _fields(item, labels))}


def _fields(item: Item, labels: Sequence[str]) -> Mapping[str, str]:
    return {LABELS: ", ".join(labels), **item.fields} if labels else item.fields


def _shot_order(item: Item, seed: int) -> str:
    return hashlib.sha256(f"shot:{seed}:{item.row_hash}".encode()).hexdigest()


def _as_dict(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls is not None:
        turn["tool_calls"] = json.loads(message.tool_calls)
    if message.name is not None:
        turn["name"] = message.name
    return turn
