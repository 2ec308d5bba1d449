"""An lm-eval task as a guard, installed or the user's own: its documents, prompts and scoring.

Import this module late: it loads lm_eval, and a task loads its data.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from lm_eval.tasks import TaskManager

from evals.tasks.capability import Item
from evals.tasks.preflight import check_metrics, check_scoring, error_line, remedy
from evals.tasks.task_files import installed_tasks, is_file, read_task, task_digest, task_file
from registry.errors import SpecError, UserError
from registry.store.hashing import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lm_eval.api.task import Task


_LEAST_WORDS = 5  # of a document's field that may be what it asks


@dataclass(frozen=True, slots=True)
class TaskDocument:
    """What one document of a task says, and what it asks: as it is rendered, and by its fields."""

    position: int
    text: str
    questions: tuple[str, ...]


def documents(named: str, root: Path) -> list[TaskDocument]:
    """Return what the documents of a task say, for comparing it with what is trained on.

    Raises:
        UserError: as `installed_items`.
    """
    task = task_of(named, root)
    return [_document(task, position, doc) for position, doc in enumerate(task.eval_docs)]


def _document(task: Task, position: int, doc: Any) -> TaskDocument:
    fields = _texts(doc)
    asked = [task.doc_to_text(doc)]  # a number where a task asks by its choices
    if task.should_decontaminate():
        asked.append(task.doc_to_decontamination_query(doc))
    questions = [text for text in asked if isinstance(text, str) and text.strip()]
    questions += [text for text in fields if len(text.split()) >= _LEAST_WORDS]
    text = "\n".join(dict.fromkeys([*questions, *fields]))
    return TaskDocument(position, text, tuple(dict.fromkeys(questions)))


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
    task = task_of(named, root)
    shown = _shown(task)
    first: dict[str, int] = {}
    items = []
    for position, doc in enumerate(task.eval_docs):
        fingerprint = document_hash(doc)
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
    task = task_of(named, root)
    return digest([*(document_hash(doc) for doc in task.eval_docs), _shown(task)])


def task_of(named: str, root: Path) -> Task:
    """Return the task that `lm_eval:` names: a file of the workspace, or one of lm-eval's."""
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
        raise SpecError(
            f"lm-eval task {name} can't be loaded: {error_line(error)}",
            expected="its data and all that it imports on this machine",
            fix=remedy(error),
        ) from error
    (task,) = loaded["tasks"].values()
    check_scoring(task, lambda positions: restricted_to(task, positions))
    return task


def restricted_to(task: Task, positions: Sequence[int], more: int = 0) -> Task:
    """Return the task with these documents alone, and with so many more examples before each.

    lm-eval's `samples=` numbers documents anew and draws examples in the order of asking; here an
    item's own examples depend on the item alone.
    """
    docs = task.eval_docs
    chosen = [docs[position] for position in positions]
    docs_of = {
        document_hash(doc): position for doc, position in zip(chosen, positions, strict=True)
    }

    class RestrictedTask(type(task)):  # type: ignore[misc]
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
                raise SpecError(
                    f"lm-eval task {task.config.task} can't score the answer "
                    f"{shortened(results)}: {error_line(error)}",
                    f"document {docs_of[document_hash(doc)]}",
                    fix="mend its process_results, or leave the guard out",
                ) from error

        def fewshot_context(self, doc: Any, *args: Any, **options: Any) -> Any:
            self.set_fewshot_seed(int(document_hash(doc)[:8], 16))
            return super().fewshot_context(doc, *args, **options)

    restricted = copy.copy(task)
    restricted.__class__ = RestrictedTask
    if more:
        restricted._config = copy.copy(task.config)  # noqa: SLF001 - it has no public name
        restricted.set_config("num_fewshot", (task.config.num_fewshot or 0) + more)
    return restricted


@cache
def _shown(task: Task) -> dict[str, str]:
    """Return the digest of the documents that examples come from: they decide every prompt."""
    docs = task.fewshot_docs() if task.config.num_fewshot else None
    return {} if docs is None else {"examples": digest([document_hash(doc) for doc in docs])}


def document_hash(doc: Any) -> str:
    """Return the SHA-256 of a document, which is its item's hash."""
    text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
