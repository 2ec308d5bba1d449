"""An lm-eval task as a guard, installed or the user's own: its documents, prompts and scoring.

Import this module late: it loads lm_eval, and a task loads its data.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from lm_eval.tasks import TaskManager

from evals.capability import Item
from evals.preflight import check_metrics, check_scoring, remedy, said, score_of
from evals.results import Sample
from evals.scoring import Scored, rejects_of
from evals.task_files import installed_tasks, is_file, read_task, task_digest, task_file
from evals.tasks import run
from registry.errors import UserError
from registry.hashing import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lm_eval.api.task import Task

    from evals.backend import Backend
    from evals.plan import Plan


_LEAST_WORDS = 5  # of a document's field that may be what it asks


@dataclass(frozen=True, slots=True)
class Document:
    """What one document of a task says, and what it asks: as it is rendered, and by its fields."""

    position: int
    text: str
    questions: tuple[str, ...]


def documents(named: str, root: Path) -> list[Document]:
    """Return what the documents of a task say, for comparing it with what is trained on.

    Raises:
        UserError: as `installed_items`.
    """
    task = _task(named, root)
    return [_document(task, position, doc) for position, doc in enumerate(task.eval_docs)]


def _document(task: Task, position: int, doc: Any) -> Document:
    fields = _texts(doc)
    asked = [task.doc_to_text(doc)]  # a number where a task asks by its choices
    if task.should_decontaminate():
        asked.append(task.doc_to_decontamination_query(doc))
    questions = [text for text in asked if isinstance(text, str) and text.strip()]
    questions += [text for text in fields if len(text.split()) >= _LEAST_WORDS]
    text = "\n".join(dict.fromkeys([*questions, *fields]))
    return Document(position, text, tuple(dict.fromkeys(questions)))


def _texts(value: Any) -> list[str]:
    """Return the texts in a document, those in its lists and objects too."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def installed_items(named: str, root: Path, split: str, limit: int | None = None) -> list[Item]:
    """Return the documents of a task as items, half of them in dev and half in test, by hash.

    An item's uid is the document's position in the task; `limit` takes the smallest hashes.

    Args:
        named: an installed task's name, or the path of a task's file.
        root: the folder that the path is relative to.
        split: `dev` or `test`.
        limit: the most items.

    Raises:
        UserError: there is no such task, its data isn't on this machine, or it can't score.
    """
    task = _task(named, root)
    shown = _shown(task)
    first: dict[str, int] = {}
    items = []
    for position, doc in enumerate(task.eval_docs):
        fingerprint = _hash(doc)
        cluster = first.setdefault(fingerprint, position)
        if ("dev" if int(fingerprint[0], 16) % 2 == 0 else "test") == split:
            target = str(task.doc_to_target(doc))
            items.append(Item(position, fingerprint, shown, target, cluster))
    kept = sorted(items, key=lambda item: item.row_hash[1:])[:limit]
    return sorted(kept, key=lambda item: item.uid)


def documents_digest(named: str, root: Path) -> str:
    """Return the digest of all that a task asks and shows: its data may change under one name.

    Raises:
        UserError: as `installed_items`.
    """
    task = _task(named, root)
    return digest([*(_hash(doc) for doc in task.eval_docs), _shown(task)])


def with_reminders(items: Sequence[Item], named: str, root: Path) -> list[Item] | None:
    """Return items to be asked with more of the task's examples than it gives by itself.

    None where the task has no examples but the documents that are asked. Which examples there are
    becomes part of each item, and so of an evaluation's key.
    """
    task = _task(named, root)
    config = task.config
    split = config.fewshot_split or config.training_split
    if split is None or split == (config.test_split or config.validation_split):
        return None
    shown = {"examples": digest([_hash(doc) for doc in task.fewshot_docs()])}
    return [replace(item, fields=shown) for item in items]


def score_installed(plan: Plan, engine: Backend) -> Scored:
    """Run the task on the plan's items, through its own prompts and its own scoring.

    The score is the task's acc_norm where it has one, else its first metric, after the first of
    its filters. An arm with examples adds so many to those that the task gives by itself.

    Raises:
        UserError: the metric isn't a number from 0 to 1 for each document.
    """
    whole = _task(str(getattr(plan.spec, "lm_eval", None)), plan.root)
    items = [question.item for question in plan.questions]

    def make(positions: Sequence[int]) -> Task:
        chosen = [items[position].uid for position in positions]
        return _restricted(whole, chosen, plan.arm.shots)

    chat = bool(engine.chat.tokenizer.chat_template)
    ran = run(engine, make, len(items), log_samples=True, chat_template=chat)
    first = ran.logged[0]["filter"] if ran.logged else None
    logged = {one["doc_id"]: one for one in ran.logged if one["filter"] == first}
    samples = tuple(
        _sample(items[position], logged[at], whole, engine)
        for at, position in enumerate(ran.positions)
    )
    return Scored(samples, rejects_of(plan, ran.too_long, engine.max_length))


def _task(named: str, root: Path) -> Task:
    if is_file(named):
        path = task_file(named, root)
        return _own(path, task_digest(path))
    return _installed(named, installed_tasks())


@cache
def _own(path: Path, _content: str) -> Task:
    return _load(path, path.name)


@cache
def _installed(name: str, _tasks: Path) -> Task:
    return _load(task_file(name, Path()), name)


def _load(path: Path, name: str) -> Task:
    """Load a task and see that it can score, before any model is asked."""
    check_metrics(name, read_task(path))
    try:
        # From its file: lm-eval's index of all tasks takes five seconds.
        loaded = TaskManager(include_defaults=False).load(str(path))
    except Exception as error:  # a task is code: its data may be missing in any way
        raise UserError(
            f"lm-eval task {name} can't be loaded: {said(error)}",
            expected="its data and all that it imports on this machine",
            fix=remedy(error),
        ) from error
    (task,) = loaded["tasks"].values()
    check_scoring(task, lambda positions: _restricted(task, positions))
    return task


def _restricted(task: Task, positions: Sequence[int], more: int = 0) -> Task:
    """Return the task with these documents alone, and with so many more examples before each.

    lm-eval's `samples=` numbers documents anew and draws examples in the order of asking; here an
    item's own examples depend on the item alone.
    """
    docs = task.eval_docs
    chosen = [docs[position] for position in positions]
    docs_of = {_hash(doc): position for doc, position in zip(chosen, positions, strict=True)}

    class Restricted(type(task)):  # type: ignore[misc]
        """The same task over fewer documents."""

        eval_docs = chosen

        def aggregation(self) -> Mapping[str, Callable[[Any], float]]:
            """Return sums that are never read: the mean is ours, and theirs may need packages."""
            return defaultdict(lambda: lambda _: 0.0)

        def process_results(self, doc: Any, results: Any) -> Any:
            try:
                return super().process_results(doc, results)
            except UserError:
                raise
            except Exception as error:  # a task is code: it may not be ready for every answer
                raise UserError(
                    f"lm-eval task {task.config.task} can't score the answer "
                    f"{shortened(results)}: {said(error)}",
                    f"document {docs_of[_hash(doc)]}",
                    fix="mend its process_results, or leave the guard out",
                ) from error

        def fewshot_context(self, doc: Any, *args: Any, **options: Any) -> Any:
            self.set_fewshot_seed(int(_hash(doc)[:8], 16))
            return super().fewshot_context(doc, *args, **options)

    restricted = copy.copy(task)
    restricted.__class__ = Restricted
    if more:
        restricted._config = copy.copy(task.config)  # noqa: SLF001 - it has no public name
        restricted.set_config("num_fewshot", (task.config.num_fewshot or 0) + more)
    return restricted


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


@cache
def _shown(task: Task) -> dict[str, str]:
    """Return the digest of the documents that examples come from: they decide every prompt."""
    docs = task.fewshot_docs() if task.config.num_fewshot else None
    return {} if docs is None else {"examples": digest([_hash(doc) for doc in docs])}


def _hash(doc: Any) -> str:
    text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
