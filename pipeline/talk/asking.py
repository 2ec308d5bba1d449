"""A prompt that the gap measured, applied to what somebody says: its template and examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evals.tasks.capability import Item
    from evals.tasks.prompts import Arm
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

_INPUT = "input"


@dataclass(frozen=True)
class Asking:
    """How a capability or guard is asked by one of its prompts.

    Attributes:
        subject: its name.
        arm: the prompt.
        column: the place in its template that is filled with what somebody says.
        labels: the answers of a choice, where its template shows them.
    """

    subject: str
    arm: Arm
    column: str
    labels: tuple[str, ...]
    _shots: Callable[[Item], Sequence[Item]]

    def turns(self, said: str) -> list[dict[str, Any]]:
        """Return the turns that ask what somebody says, as an item of the capability is asked."""
        from evals.tasks.capability import Item
        from evals.tasks.prompts import render_messages

        item = Item(-1, "", {self.column: said}, "", -1)
        return render_messages(self.arm, item, self._shots(item), self.labels)


def asking(ws: OpenWorkspace, ui: Ui, prompt: str | None, capability: str | None) -> Asking | None:
    """Return how to ask by a prompt that was measured; None where neither is named.

    Args:
        ws: the workspace.
        ui: is told of what has to be ingested for examples.
        prompt: its name, such as `few_shot_5`; `zero_shot` where a capability alone is named.
        capability: whose it is; may be left out where only one has it.

    Raises:
        UserError: no such prompt, several capabilities have it, or it takes more than one text.
    """
    if prompt is None and capability is None:
        return None
    from evals.tasks.prompts import places

    what, arm = _chosen(ws, prompt or "zero_shot", capability)
    found = [name for name in places(arm.template) if name != "labels"]
    if len(found) > 1:
        raise UserError(
            f"{arm.name} of {what.name} is filled with {', '.join(found)}, and a question is one "
            "text",
            where="--prompt",
            expected="a prompt with one place, such as {input}",
        )
    labels, shots = _examples(ws, ui, what, arm)
    return Asking(what.name, arm, found[0] if found else _INPUT, labels, shots)


def _chosen(ws: OpenWorkspace, prompt: str, capability: str | None) -> tuple[Subject, Arm]:
    from evals.tasks.prompts import arms_of
    from pipeline.spec.subjects import subject, subjects

    asked = subjects(ws.spec) if capability is None else (subject(ws.spec, capability),)
    arms = [(what, arm) for what in asked for arm in arms_of(what.spec.prompts)]
    found = [(what, arm) for what, arm in arms if arm.name == prompt and what.spec.data]
    if not found:
        known = ", ".join(dict.fromkeys(arm.name for _, arm in arms))
        of = f" of {capability}" if capability else ""
        raise UserError(f"no prompt{of} is called '{prompt}'", "--prompt", f"one of {known}")
    if len(found) > 1:
        raise UserError(
            f"{len(found)} have a prompt '{prompt}'",
            where="--prompt",
            expected=f"--capability with one of {', '.join(what.name for what, _ in found)}",
        )
    return found[0]


def _examples(
    ws: OpenWorkspace, ui: Ui, what: Subject, arm: Arm
) -> tuple[tuple[str, ...], Callable[[Item], Sequence[Item]]]:
    """Return the labels that stand for all items, and what gives the examples of one."""
    from evals.tasks.prompts import places
    from evals.tasks.similar import similar_shots
    from evals.tasks.version_items import shot_pool, version_shots
    from pipeline.ingest import resolve
    from pipeline.measure.measure import labels_of_subject, reader_of
    from pipeline.spec.subjects import errors_at

    shown = "labels" in places(arm.template)
    if not arm.shots and not shown:
        return (), lambda _: ()
    with errors_at(what):
        resolved = resolve(ws, ui, [str(what.spec.data)])
        labels = labels_of_subject(resolved, what)
        reader = reader_of(resolved, what)
        if arm.similar:
            pool = shot_pool(reader, what.spec)
            return labels, lambda item: similar_shots(pool, [item], arm, labels)[item.uid]
        fixed = version_shots(reader, what.spec, arm, seed=0)
    return labels, lambda _: fixed
