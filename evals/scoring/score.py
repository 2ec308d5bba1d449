"""The run of a plan with the engine: render, sort out what is too long, ask, score.

Import this module late: it loads lm_eval.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from evals.engine.limits import NotFiniteError
from evals.scoring.results import Sample, ScoredItems, rejects_of
from evals.tasks.scorers import scorer_of
from evals.tasks.task import AskedForm, CapabilityTask, run
from registry.chat.chat import TurnRefusedError
from registry.chat.form import answer_form
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.engine.backend import Backend
    from evals.scoring.plan import ScoringPlan
    from evals.tasks.prompts import Question
    from evals.tasks.task import Outcome
    from registry.chat.chat import Chat


def score(plan: ScoringPlan, engine: Backend) -> ScoredItems:
    """Ask the plan's questions of its model; the engine's base is left with that adapter on.

    Raises:
        NotFiniteError: the model's arithmetic breaks for an item, which is named.
    """
    engine.use(plan.answerer.adapter_path, plan.answerer.scale)
    try:
        if plan.spec.answer is None:
            from evals.scoring.installed import score_installed

            return score_installed(plan, engine)
        return _score(plan, engine)
    except NotFiniteError as error:
        item = plan.questions[error.request].item
        where = item.where or f"{plan.subject}, document {item.uid}"
        raise NotFiniteError(error.request, error.layer, where) from None


def _score(plan: ScoringPlan, engine: Backend) -> ScoredItems:
    chat = engine.chat
    asking = _asking(plan, chat)
    if asking.scorer and not str(plan.spec.answer).startswith("python:"):
        for question in plan.questions:  # what can't be scored is found before anything is written
            asking.scorer("", question.item)
    contexts = [render(chat, question) for question in plan.questions]

    def make(positions: Sequence[int]) -> CapabilityTask:
        name = f"{plan.subject}_{plan.arm.name}"
        questions = [plan.questions[i] for i in positions]
        return CapabilityTask(name, questions, [contexts[i] for i in positions], asking)

    ran = run(engine, make, len(contexts))
    tokens = _count_tokens(chat, contexts, asking.form.end)
    samples = tuple(
        _sample(plan.questions[i], ran.task.outcomes[at], tokens[i])
        for at, i in enumerate(ran.positions)
        if ran.task is not None
    )
    return ScoredItems(samples, rejects_of(plan, ran.too_long, engine.max_length))


def _asking(plan: ScoringPlan, chat: Chat) -> AskedForm:
    form, specials = answer_form(chat), chat.texts_of(chat.specials)
    if not plan.generates:
        return AskedForm(plan.labels, form)
    return AskedForm(
        labels=(),
        form=form,
        specials=specials,
        scorer=scorer_of(plan.spec, plan.root),
        reasoned=plan.arm.kind == "cot",
        max_new_tokens=plan.max_new_tokens,
    )


def render(chat: Chat, question: Question) -> str:
    """Return the text that asks a question, by the chat template of the base."""
    item = question.item
    if item.text is not None:
        return item.text
    tools = json.loads(item.tools) if item.tools else None
    try:
        return chat.context(question.messages, tools)
    except TurnRefusedError as error:
        raise DataError(error.what, where=item.where, fix=error.fix) from error


def _count_tokens(chat: Chat, texts: Sequence[str], end: str) -> list[int]:
    """Return the tokens of each text; what all share up to a turn's end is counted once.

    That is exact, since text is split at special tokens before anything else.
    """
    shared = 0
    if end in chat.tokenizer.get_added_vocab() and len(texts) > 1:
        common = os.path.commonprefix([min(texts), max(texts)])  # noqa: RUF071 - texts, not paths
        shared = common.rfind(end) + len(end) if end in common else 0
    head = texts[0][:shared]
    encoded = chat.tokenizer([head, *(t[shared:] for t in texts)], add_special_tokens=False)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return [lengths[0] + length for length in lengths[1:]]


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
