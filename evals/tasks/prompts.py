"""Prompts: filling templates, the arms that a capability tries, and their examples.

Examples (shots) come from train and are earlier turns of the conversation. They are fixed by hash,
the same for every item, or by likeness, each item's own (similar.py). Either way an item is
shown the same whatever subset of items is run, and never itself or its near-duplicate.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from registry.chat.messages import as_turn
from registry.errors import DataError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evals.tasks.capability import Item, PromptsSpec

    Shots = Sequence[Item] | Mapping[int, Sequence[Item]]  # for all items, or by an item's uid

ArmKind = Literal["zero_shot", "few_shot", "cot"]

LABELS = "labels"
"""The name that a template gives the list of labels by, unless the data has such a column."""

REMINDERS = 3
"""Examples that remind a tuned model of what is asked, where the spec names no number."""

_NAME = r"[^\W\d][\w.-]*"
_PLACE = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to ask: a template for the user turn, a number of examples, a system turn.

    `similar`: each item has examples of its own, those most like it.
    """

    name: str
    template: str
    shots: int
    system: str | None
    kind: ArmKind
    similar: bool = False


def arms_of(prompts: PromptsSpec) -> tuple[Arm, ...]:
    """Return the arms of a spec: zero-shot first, each number of examples, chain of thought."""
    plain, system = prompts.zero_shot, prompts.system
    arms = [Arm("zero_shot", plain, 0, system, "zero_shot")]
    for shots in dict.fromkeys(prompts.few_shot):
        if "random" in prompts.examples:
            arms.append(Arm(f"few_shot_{shots}", plain, shots, system, "few_shot"))
        if "similar" in prompts.examples:
            name = f"few_shot_{shots}_similar"
            arms.append(Arm(name, plain, shots, system, "few_shot", similar=True))
    if prompts.cot is not None:
        arms.append(Arm("cot", prompts.cot, 0, system, "cot"))
    return tuple(arms)


def another_arm(prompts: PromptsSpec) -> Arm:
    """Return the prompt that lost items are asked with again: with examples, the same for all."""
    shots = prompts.few_shot[0] if prompts.few_shot else REMINDERS
    return Arm(f"few_shot_{shots}", prompts.zero_shot, shots, prompts.system, "few_shot")


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
        raise SpecError(
            f"the prompt names {{{name}}}, which is not a column of the data",
            expected=f"one of {', '.join(sorted(fields))}",
            fix=f"write {{{{{name}}}}} if the text {{{name}}} is meant",
        )

    return _PLACE.sub(value, template)


def places(template: str) -> tuple[str, ...]:
    """Return the names that `fill` replaces in a template, each once, in their order."""
    return tuple(dict.fromkeys(one[2] for one in _PLACE.finditer(template) if one[2]))


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
    for item in sorted(usable_shots(train), key=lambda item: shot_order(item, seed)):
        if len(chosen) > arm.shots:
            break
        chosen.setdefault(item.cluster, item)
    require_enough(arm, len(chosen))
    return tuple(chosen.values())


def usable_shots(train: Iterable[Item]) -> list[Item]:
    """Return the items that can be examples: single questions."""
    return [item for item in train if not item.history and item.text is None]


def shot_order(item: Item, seed: int) -> str:
    """Return what orders items by hash, the same whatever other items there are."""
    return hashlib.sha256(f"{shot_salt(seed)}:{item.row_hash}".encode()).hexdigest()


def shot_salt(seed: int) -> str:
    """Return what salts the hash by which examples are chosen."""
    return f"shot:{seed}"


def require_enough(arm: Arm, found: int) -> None:
    """Raise UserError where train has fewer examples than the arm shows."""
    if found < arm.shots:
        raise DataError(
            f"{arm.name} needs {arm.shots} examples, but train has {found} that differ",
            expected="single questions with answers in the train split",
            fix="ask for fewer in prompts.few_shot, or add rows to train",
        )


def question_of(arm: Arm, item: Item, labels: Sequence[str] = ()) -> str:
    """Return the user turn that asks `item`.

    Raises:
        UserError: the template names a column that the item hasn't.
    """
    return fill(arm.template, _fields(item, labels))


def render_messages(
    arm: Arm, item: Item, shots: Sequence[Item], labels: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the turns that ask `item`: system, examples, the item's history, the question.

    Args:
        arm: how to ask.
        item: what to ask.
        shots: the arm's examples, for this item where it has its own.
        labels: fill `{labels}` in templates, where an item has none of its own.

    Raises:
        UserError: a template names a column that the item hasn't.
    """
    turns = [as_turn(turn) for turn in item.history]
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
    return {"role": "user", "content": question_of(arm, item, labels)}


def _fields(item: Item, labels: Sequence[str]) -> Mapping[str, str]:
    shown = item.labels or labels
    return {LABELS: ", ".join(shown), **item.fields} if shown else item.fields


@dataclass(frozen=True, slots=True)
class Question:
    """An item with the turns that ask it (none for a plain text), before any chat template."""

    item: Item
    messages: tuple[dict[str, Any], ...]
