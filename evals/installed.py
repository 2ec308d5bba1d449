"""An installed lm-eval task as a guard: its own documents, prompts and scoring.

Import this module late: it loads lm_eval, and a task loads its data.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from evals.capability import Item
from evals.results import Sample
from evals.scoring import Scored, rejects_of
from evals.tasks import run
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lm_eval.api.task import Task

    from evals.engine import PackedLM
    from evals.plan import Plan

TASKS = Path(lm_eval.tasks.__file__).parent
"""Where lm-eval keeps its tasks."""


def installed_items(name: str, split: str, limit: int | None = None) -> list[Item]:
    """Return the documents of a task as items, half of them in dev and half in test, by hash.

    An item's uid is the document's position in the task; `limit` takes the smallest hashes.

    Raises:
        UserError: there is no such task, or its data isn't on this machine.
    """
    task = _load(name, TASKS)
    first: dict[str, int] = {}
    items = []
    for position, doc in enumerate(task.eval_docs):
        fingerprint = _hash(doc)
        cluster = first.setdefault(fingerprint, position)
        if ("dev" if int(fingerprint[0], 16) % 2 == 0 else "test") == split:
            target = str(task.doc_to_target(doc))
            items.append(Item(position, fingerprint, {}, target, cluster))
    kept = sorted(items, key=lambda item: item.row_hash[1:])[:limit]
    return sorted(kept, key=lambda item: item.uid)


def score_installed(plan: Plan, engine: PackedLM) -> Scored:
    """Run the task on the plan's items, through its own prompts and its own scoring.

    The score is the task's acc_norm where it has one, else its first metric, after the first of
    its filters.

    Raises:
        UserError: the metric isn't a number from 0 to 1 for each document.
    """
    whole = _load(str(getattr(plan.spec, "lm_eval", None)), TASKS)
    items = [question.item for question in plan.questions]

    def make(positions: Sequence[int]) -> Task:
        return _restricted(whole, [items[position].uid for position in positions])

    chat = bool(engine.loaded.tokenizer.chat_template)
    ran = run(engine, make, len(items), log_samples=True, chat_template=chat)
    first = ran.logged[0]["filter"] if ran.logged else None
    logged = {one["doc_id"]: one for one in ran.logged if one["filter"] == first}
    samples = tuple(
        _sample(items[position], logged[at], whole, engine)
        for at, position in enumerate(ran.positions)
    )
    return Scored(samples, rejects_of(plan, ran.too_long, engine.loaded.context))


@cache
def _load(name: str, folder: Path) -> Task:
    try:
        # The whole index takes five seconds, one family of tasks a moment.
        loaded = TaskManager(include_defaults=False, include_path=_family(name, folder)).load(name)
    except UserError:
        raise
    except Exception as error:  # a task is code: its data may be missing in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UserError(
            f"lm-eval task {name} can't be loaded: {type(error).__name__}: {reason}",
            expected="its data on this machine",
            fix="fetch it once with a connection, or leave the guard out",
        ) from error
    tasks: Mapping[str, Task] = loaded["tasks"]
    if list(tasks) != [name]:
        raise UserError(
            f"{name} is a group of {len(tasks)} lm-eval tasks", expected="the name of one task"
        )
    return tasks[name]


def _family(name: str, folder: Path) -> Path:
    """Return the folder of the task: the one directly under `folder` that holds its YAML."""
    line = re.compile(
        rf"""^["']?(?:task|group|tag)["']?\s*:\s*["']?{re.escape(name)}["']?\s*$""",
        re.MULTILINE,
    )
    for path in sorted(folder.rglob("*.yaml")):
        if line.search(path.read_text(encoding="utf-8", errors="replace")):
            return folder / path.relative_to(folder).parts[0]
    raise UserError(f"lm-eval has no task {name}", expected="a name that `lm-eval ls tasks` lists")


def _restricted(task: Task, positions: Sequence[int]) -> Task:
    """Return the task with these documents alone.

    lm-eval's `samples=` numbers documents anew and draws examples in the order of asking; here an
    item's own examples depend on the item alone.
    """
    docs = task.eval_docs
    chosen = [docs[position] for position in positions]

    class Restricted(type(task)):  # type: ignore[misc]
        """The same task over fewer documents."""

        eval_docs = chosen

        def fewshot_context(self, doc: Any, *args: Any, **options: Any) -> Any:
            self.set_fewshot_seed(int(_hash(doc)[:8], 16))
            return super().fewshot_context(doc, *args, **options)

    restricted = copy.copy(task)
    restricted.__class__ = Restricted
    return restricted


def _sample(item: Item, logged: Mapping[str, Any], task: Task, engine: PackedLM) -> Sample:
    metric = "acc_norm" if "acc_norm" in logged["metrics"] else logged["metrics"][0]
    score = logged[metric]
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise UserError(
            f"metric {metric} of lm-eval task {task.config.task} is {score!r} for a document",
            expected="a task whose first metric is a number from 0 to 1 for each document",
        )
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
        score=float(score),
        loglikelihoods=likelihoods,
        prompt_tokens=len(engine.loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]),
    )


def _hash(doc: Any) -> str:
    text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
