"""The plan of an evaluation, nothing run: who is asked what, and the key of all that decides it.

Making a plan needs no model, so that an evaluation that was done before is found without loading
one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evals.engine.limits import ENGINE_VERSION
from evals.tasks.capability import labels_of
from evals.tasks.prompts import Question, render_messages
from evals.tasks.scorers import check_expected, code_files
from evals.tasks.task_files import own_file, task_digest
from registry.errors import DataError
from registry.store.hashing import digest, file_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evals.tasks.capability import CapabilitySpec, GuardSpec, Item
    from evals.tasks.prompts import Arm, Shots
    from registry.models.base import BaseIdentity

SCORING_VERSION = 1
"""Raised whenever prompts or tasks could give another score (the engine has its own)."""
_SCORER_VERSIONS = {"number": 2, "exact": 2, "choice": 2, "contains": 2, "f1": 2, "rouge": 2}
"""Of the scorers that changed since, raised whenever one could give another score."""

_REASONING_TOKENS = 256  # chain of thought needs more than the answer that the spec allows


@dataclass(frozen=True, slots=True)
class Answerer:
    """Which model answers: the base alone, or with an adapter whose deltas are scaled.

    `backend` is what computes it, from `backend_of`; None for gapmend's own engine.
    """

    base: BaseIdentity
    adapter_id: str | None = None
    adapter_path: Path | None = None
    scale: float = 1.0
    backend: str | None = None


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """What is asked of whom; `root` is where the spec's own paths start."""

    subject: str
    split: str
    spec: CapabilitySpec | GuardSpec
    arm: Arm
    labels: tuple[str, ...]
    questions: tuple[Question, ...]
    answerer: Answerer
    root: Path

    @property
    def generates(self) -> bool:
        """Return whether the model writes the answer, rather than being asked for likelihoods."""
        by_choice = self.spec.answer == "choice" and self.arm.kind != "cot"
        return not by_choice and self.spec.answer != "perplexity"

    @property
    def max_new_tokens(self) -> int:
        """Return how many tokens an answer may have, reasoning included."""
        asked = self.spec.max_new_tokens
        return max(asked, _REASONING_TOKENS) if self.arm.kind == "cot" else asked


def make_plan(  # noqa: PLR0913 - each of them is part of the plan
    subject: str,
    split: str,
    spec: CapabilitySpec | GuardSpec,
    *,
    arm: Arm,
    shots: Shots,
    items: Sequence[Item],
    labels: Sequence[str],
    answerer: Answerer,
    root: Path,
) -> ScoringPlan:
    """Decide an evaluation.

    Raises:
        UserError: no items, an answer that isn't among the labels, or a prompt that names an
            unknown column.
    """
    if not items:
        raise DataError(f"{subject} has no items in {split}", fix="add rows, or move the split")
    known = tuple(labels) or labels_of(spec, (), root)
    if known:
        _check_labels(subject, items, known)
    check_expected(spec, items)
    questions = tuple(
        Question(item, () if _unasked(spec, item) else _turns(arm, item, shots, known))
        for item in items
    )
    return ScoringPlan(subject, split, spec, arm, known, questions, answerer, root)


def identity_of(plan: ScoringPlan) -> dict[str, Any]:
    """Return all that decides the result, as the identity of the `eval` object."""
    spec, answerer = plan.spec, plan.answerer
    # Only where it isn't ours, or has changed, so that scores from before are found again.
    other: dict[str, Any] = {"backend": answerer.backend} if answerer.backend else {}
    version = _SCORER_VERSIONS.get(spec.answer or "") if plan.generates else None
    if version is not None:
        other["scorer"] = version
    return other | {
        "format": 1,
        "scoring": SCORING_VERSION,
        "engine": ENGINE_VERSION,
        "subject": plan.subject,
        "split": plan.split,
        "arm": plan.arm.name,
        "arm_kind": plan.arm.kind,
        "base": answerer.base.digest,
        "adapter": answerer.adapter_id,
        "scale": answerer.scale if answerer.adapter_id else 1.0,
        "answer": spec.answer or _task(spec, plan.root),
        "labels": list(plan.labels),
        "pattern": spec.pattern,
        "code": code_digest(spec, plan.root),
        "max_new_tokens": plan.max_new_tokens if plan.generates else None,
        "questions": digest([_fingerprint(question) for question in plan.questions]),
    }


def code_digest(spec: CapabilitySpec | GuardSpec, root: Path) -> str | None:
    """Return the digest of the user's own code that scores, None where there is none.

    That is the module of a `python:` answer with what it imports from `root`, or the folder of a
    task's file in `lm_eval:`.

    Raises:
        UserError: it isn't there.
    """
    if spec.answer is not None and spec.answer.startswith("python:"):
        files = code_files(spec.answer, root)
        return digest({os.path.relpath(file, root): file_digest(file) for file in files})
    own = own_file(getattr(spec, "lm_eval", None), root)
    return None if own is None else task_digest(own)


def _turns(arm: Arm, item: Item, shots: Shots, labels: Sequence[str]) -> tuple[dict[str, Any], ...]:
    shown = shots.get(item.uid, ()) if isinstance(shots, Mapping) else shots
    return tuple(render_messages(arm, item, shown, labels))


def _unasked(spec: CapabilitySpec | GuardSpec, item: Item) -> bool:
    """Return whether no turn is made: a text is scored as it is, an lm-eval task asks itself."""
    return item.text is not None or spec.answer is None


def _fingerprint(question: Question) -> list[Any]:
    item = question.item
    return [
        item.uid,
        item.row_hash,
        item.cluster,
        item.expected,
        item.text,
        item.tools,
        dict(item.fields),
        list(question.messages),
    ]


def _task(spec: CapabilitySpec | GuardSpec, root: Path) -> str:
    """Return the lm-eval task; a file by its name alone, for its content is in the `code`."""
    named = getattr(spec, "lm_eval", None)
    own = own_file(named, root)
    return f"lm_eval:{named if own is None else own.name}@{_lm_eval()}"


@functools.cache
def _lm_eval() -> str:
    from importlib.metadata import version

    return version("lm_eval")


def _check_labels(subject: str, items: Sequence[Item], labels: Sequence[str]) -> None:
    allowed = set(labels)
    for item in items:
        if item.expected not in allowed:
            raise DataError(
                f"{subject}: the answer {item.expected!r} is not among the {len(labels)} labels",
                where=item.where,
                expected=f"one of {', '.join(labels[:10])}{', …' if len(labels) > 10 else ''}",  # noqa: PLR2004
            )
