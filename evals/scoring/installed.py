"""Evaluation of an installed lm-eval task: its documents are scored, and each answer is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evals.scoring.results import Sample, ScoredItems, rejects_of
from evals.tasks.installed import document_hash, restricted_to, task_of
from evals.tasks.preflight import score_of
from evals.tasks.task import run
from registry.store.hashing import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lm_eval.api.task import Task

    from evals.engine.backend import Backend
    from evals.scoring.plan import ScoringPlan
    from evals.tasks.capability import Item


def with_reminders(items: Sequence[Item], named: str, root: Path) -> list[Item] | None:
    """Return items to be asked with more of the task's examples than it gives by itself.

    None where the task has no examples but the documents that are asked. Which examples there are
    becomes part of each item, and so of an evaluation's key.
    """
    task = task_of(named, root)
    config = task.config
    split = config.fewshot_split or config.training_split
    if split is None or split == (config.test_split or config.validation_split):
        return None
    shown = {"examples": digest([document_hash(doc) for doc in task.fewshot_docs()])}
    return [replace(item, fields=shown) for item in items]


def score_installed(plan: ScoringPlan, engine: Backend) -> ScoredItems:
    """Run the task on the plan's items, through its own prompts and its own scoring.

    The score is the task's acc_norm where it has one, else its first metric, after the first of
    its filters. An arm with examples adds so many to those that the task gives by itself.

    Raises:
        UserError: the metric isn't a number from 0 to 1 for each document.
    """
    whole = task_of(str(getattr(plan.spec, "lm_eval", None)), plan.root)
    items = [question.item for question in plan.questions]

    def make(positions: Sequence[int]) -> Task:
        chosen = [items[position].uid for position in positions]
        return restricted_to(whole, chosen, plan.arm.shots)

    chat = bool(engine.chat.tokenizer.chat_template)
    ran = run(engine, make, len(items), log_samples=True, chat_template=chat)
    first = ran.logged[0]["filter"] if ran.logged else None
    logged = {one["doc_id"]: one for one in ran.logged if one["filter"] == first}
    samples = tuple(
        _sample(items[position], logged[at], whole, engine)
        for at, position in enumerate(ran.positions)
    )
    return ScoredItems(samples, rejects_of(plan, ran.too_long, engine.max_length))


def _sample(item: Item, logged: Mapping[str, Any], task: Task, engine: Backend) -> Sample:
    prompt = str(logged["arguments"][0][0])
    responses = logged["filtered_resps"]
    likelihoods = None
    answer = str(responses[0])
    if task.OUTPUT_TYPE == "multiple_choice":
        likelihoods = tuple(float(response[0]) for response in responses)
        best = likelihoods.index(max(likelihoods))
        answer = str(logged["arguments"][best][1]).strip()
    return Sample(
        row_uid=item.uid,
        row_hash=item.row_hash,
        cluster=item.cluster,
        prompt=prompt,
        expected=item.expected,
        answer=answer,
        score=score_of(task.config.task, logged),
        loglikelihoods=likelihoods,
        prompt_tokens=len(engine.chat.tokenizer(prompt, add_special_tokens=False)["input_ids"]),
    )
