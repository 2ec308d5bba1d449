"""The changes behind a score: how far the words moved, and what another prompt recovers.

`forget` looks at both once for each adapter that it compares; nothing is decided by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evals.verdicts.forgetting import Reprompt
from pipeline.measure.measure import labels_of_subject, measure

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from evals.scoring.evaluate import EvalResult
    from evals.scoring.plan import Answerer
    from evals.tasks.capability import Item
    from evals.tasks.prompts import Arm
    from pipeline.measure.measure import TunedModel
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace

MOST_ASKED_AGAIN = 100
"""Lost items that are asked again, at most: enough to tell hidden from lost."""


def divergence_of(
    ws: Resolved,
    ui: Ui,
    one: Subject,
    *,
    base: str,
    items: Sequence[Item],
    before: EvalResult,
    tuned: TunedModel,
    against: TunedModel | None = None,
) -> float | None:
    """Return the mean KL of the tuned model from the base (or from `against`) on these items.

    None where the backend gives no logits.
    """
    from evals.engine.packed import PackedLM
    from evals.scoring.divergence import MOST_ITEMS, divergence
    from evals.scoring.plan import make_plan
    from pipeline.measure.measure import zero_shot

    first, second = (_answerer(ws, base, which) for which in (against, tuned))
    engine = ws.models.engine(base)
    if not isinstance(engine, PackedLM):
        return None
    chosen = sorted(items, key=lambda item: item.row_hash)[:MOST_ITEMS]
    plan = make_plan(
        one.name,
        "dev",
        one.spec,
        arm=zero_shot(one),
        shots=(),
        items=chosen,
        labels=labels_of_subject(ws, one),
        answerer=second,
        root=ws.root,
    )
    samples = {sample.row_uid: sample for sample in before.samples}
    with ui.progress(f"{one.name} · KL", total=len(chosen), brief=True) as bar:
        return divergence(engine, plan.questions, samples, first, second, bar.advance)


def reprompted(
    ws: Resolved,
    ui: Ui,
    one: Subject,
    *,
    base: str,
    items: Sequence[Item],
    lost: Collection[int],
    before: EvalResult,
    tuned: TunedModel,
) -> Reprompt | None:
    """Ask lost items again with examples before them, and count those that score as before.

    None where nothing was lost, or where there is no other way to ask.
    """
    asked = sorted((item for item in items if item.uid in lost), key=lambda item: item.row_hash)
    again = _another_way(ws, one, asked[:MOST_ASKED_AGAIN])
    if again is None:
        return None
    arm, asked = again
    result = measure(ws, ui, one, base=base, items=asked, split="dev", arm=arm, tuned=tuned)
    scores = {sample.row_uid: sample.score for sample in before.samples}
    back = tuple(s.row_uid for s in result.samples if s.score >= scores[s.row_uid])
    return Reprompt(arm.name, result.n, back)


class _Again(NamedTuple):
    arm: Arm
    items: list[Item]


def _another_way(ws: Resolved, one: Subject, items: list[Item]) -> _Again | None:
    """Return how to ask again, with examples; None where there are none, or nothing is asked."""
    from evals.tasks.prompts import another_arm
    from evals.tasks.version_items import first_shots
    from pipeline.measure.measure import reader_of

    if not items or one.spec.answer == "perplexity":
        return None
    arm = another_arm(one.spec.prompts)
    named = getattr(one.spec, "lm_eval", None)
    if named is not None:
        from evals.scoring.installed import with_reminders

        shown = with_reminders(items, named, ws.root)
        return None if shown is None else _Again(arm, shown)
    there = first_shots(reader_of(ws, one), one.spec, 0, arm.shots + 1)
    return _Again(arm, items) if len({item.cluster for item in there}) > arm.shots else None


def _answerer(ws: OpenWorkspace, base: str, which: TunedModel | None) -> Answerer:
    from evals.scoring.plan import Answerer
    from registry.models.adapters import adapter_path

    identity = ws.models.identity(base)
    if which is None:
        return Answerer(identity)
    path = adapter_path(ws.store, which.adapter_id)
    return Answerer(identity, which.adapter_id, path, which.scale)
