"""Running a plan with the engine: render, sort out what is too long, ask, score.

Import this module late: it loads lm_eval.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from evals.results import Reject, Sample
from evals.scorers import scorer_of
from evals.tasks import Asking, CapabilityTask, end_of_turn, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.engine import PackedLM
    from evals.plan import Plan, Question
    from evals.tasks import Outcome
    from registry.models import LoadedModel


class Scored(NamedTuple):
    """The samples in the order of the questions, and the questions that were too long."""

    samples: tuple[Sample, ...]
    rejects: tuple[Reject, ...]


def score(plan: Plan, engine: PackedLM) -> Scored:
    """Ask the plan's questions of its model; the engine's base is left with that adapter on."""
    loaded = engine.loaded
    loaded.use(plan.answerer.adapter_path, plan.answerer.scale)
    if plan.spec.answer is None:
        from evals.installed import score_installed

        samples = score_installed(plan, engine)
        return Scored(samples, ())
    asking = _asking(plan, loaded)
    contexts = [_render(loaded, question) for question in plan.questions]
    tokens = _count_tokens(loaded, contexts, asking.end)
    rejects = _rejects(plan, loaded, asking, tokens)
    fits = [i for i in range(len(contexts)) if i not in rejects]
    if not fits:
        return Scored((), tuple(rejects.values()))
    task = CapabilityTask(
        f"{plan.subject}_{plan.arm.name}",
        [plan.questions[i] for i in fits],
        [contexts[i] for i in fits],
        asking,
    )
    run(engine, task)
    samples = tuple(
        _sample(plan.questions[i], task.outcomes[position], tokens[i])
        for position, i in enumerate(fits)
    )
    return Scored(samples, tuple(rejects.values()))


def _asking(plan: Plan, loaded: LoadedModel) -> Asking:
    end = end_of_turn(loaded)
    if not plan.generates:
        return Asking(plan.labels, end)
    return Asking(
        labels=(),
        end=end,
        scorer=scorer_of(plan.spec, plan.root),
        reasoned=plan.arm.kind == "cot",
        max_new_tokens=plan.max_new_tokens,
    )


def _render(loaded: LoadedModel, question: Question) -> str:
    item = question.item
    if item.text is not None:
        return item.text
    tools = json.loads(item.tools) if item.tools else None
    return loaded.render(question.messages, tools=tools, add_generation_prompt=True)


def _count_tokens(loaded: LoadedModel, texts: Sequence[str], end: str) -> list[int]:
    """Return the tokens of each text; what all share up to a turn's end is counted once.

    That is exact, since text is split at special tokens before anything else.
    """
    shared = 0
    if end in loaded.tokenizer.get_added_vocab() and len(texts) > 1:
        common = os.path.commonprefix([min(texts), max(texts)])  # noqa: RUF071 - texts, not paths
        shared = common.rfind(end) + len(end) if end in common else 0
    head = texts[0][:shared]
    encoded = loaded.tokenizer([head, *(t[shared:] for t in texts)], add_special_tokens=False)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return [lengths[0] + length for length in lengths[1:]]


def _rejects(
    plan: Plan, loaded: LoadedModel, asking: Asking, tokens: Sequence[int]
) -> dict[int, Reject]:
    """Return the questions that do not fit with their answers, by position; none is cut."""
    room = _answer_tokens(plan, loaded, asking)
    rejects = {}
    for i, question in enumerate(plan.questions):
        item, needed = question.item, tokens[i] + room[i]
        if item.text is None and needed > loaded.context:
            reason = (
                f"{tokens[i]} tokens of prompt and {room[i]} of answer are more than the "
                f"base's context of {loaded.context}"
            )
            rejects[i] = Reject(
                item.uid,
                item.row_hash,
                item.source_file,
                item.source_line,
                plan.answerer.base.name,
                reason,
            )
    return rejects


def _answer_tokens(plan: Plan, loaded: LoadedModel, asking: Asking) -> list[int]:
    if plan.generates:
        return [plan.max_new_tokens] * len(plan.questions)
    if asking.labels:
        longest = max(_count_tokens(loaded, [label + asking.end for label in asking.labels], ""))
        return [longest] * len(plan.questions)
    return _count_tokens(loaded, [q.item.expected + asking.end for q in plan.questions], "")


def _sample(question: Question, outcome: Outcome, prompt_tokens: int) -> Sample:
    item = question.item
    return Sample(
        row_uid=item.uid,
        row_hash=item.row_hash,
        cluster=item.cluster,
        prompt=str(question.messages[-1]["content"]) if question.messages else item.text or "",
        expected=item.expected,
        answer=outcome.answer,
        score=outcome.score,
        loglikelihoods=outcome.loglikelihoods,
        prompt_tokens=prompt_tokens,
    )
