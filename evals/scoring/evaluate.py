"""Evaluation of a list of items with one model; the result is stored under all that decides it.

The object kind is `eval`. Its identity holds the base (weights, tokenizer, template, dtype,
quantisation), the adapter and its scale, the answer kind with labels and pattern, every turn of
every prompt with the examples in it, what is expected, and the version of the scoring. Asking
again reads the file back and loads no model; no two models share an id. Killed on the way, or ended
early, it goes on with the items that were not answered.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evals.engine.journal import FOLDER, Journal
from evals.scoring.plan import Answerer, identity_of, make_plan
from evals.scoring.results import (
    EvalResult,
    RejectedItem,
    Sample,
    ScoredItems,
    mean_prompt_tokens,
    paired,
    read_result,
    scores_of,
    write_results,
)
from evals.verdicts.anytime import batches
from evals.verdicts.stats import mean_interval
from registry.datasets.versions.rejects import commonest
from registry.errors import DataError
from registry.store.disk import one_line_when_full
from registry.store.hashing import digest
from registry.store.kinds import EvalMeta
from registry.store.manifest import manifest_in
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from evals.engine.backend import Backend
    from evals.scoring.plan import ScoringPlan
    from evals.tasks.capability import CapabilitySpec, GuardSpec, Item
    from evals.tasks.prompts import Arm, Shots
    from evals.verdicts.anytime import EarlyRule
    from evals.verdicts.stats import Interval
    from registry.catalog.catalog import Catalog
    from registry.models.base import BaseIdentity
    from registry.store.objects import ObjectRef, Store

__all__ = ["EvalResult", "RejectedItem", "Sample", "TooLongError", "evaluate", "paired"]

KIND = "eval"
_log = logging.getLogger("gapmend")

ALLOWED_REJECTS = 0.01
"""The share of items that may be longer than the base's context, unless more is allowed."""


class TooLongError(DataError):
    """More items than allowed are longer, as they are asked, than the base's context."""


def evaluate(  # noqa: PLR0913 - each of them decides the result
    store: Store,
    catalog: Catalog,
    engine: Backend | Callable[[], Backend],
    *,
    subject: str,
    spec: CapabilitySpec | GuardSpec,
    arm: Arm,
    shots: Shots,
    items: Sequence[Item],
    split: str,
    base: BaseIdentity,
    adapter_id: str | None = None,
    adapter_path: Path | None = None,
    scale: float = 1.0,
    backend: str | None = None,
    labels: Sequence[str] = (),
    allow_rejects: float = ALLOWED_REJECTS,
    until: EarlyRule | None = None,
) -> EvalResult:
    """Score `items`, or read back what was scored before.

    Args:
        store: where results are kept.
        catalog: where they are acknowledged.
        engine: the scoring engine over the loaded base, or a function that gives it; the function
            is called only when there is something to score.
        subject: the name of the capability or guard.
        spec: the capability or guard.
        arm: the prompt.
        shots: its examples, from `choose_shots` or `similar_shots`.
        items: what to score, in the order of the result.
        split: the split that the items are from.
        base: the base's identity.
        adapter_id: the adapter's object, None for the base alone.
        adapter_path: its folder.
        scale: what the adapter's deltas are multiplied by.
        backend: which backend the engine is, from `backend_of`; None for gapmend's own.
        labels: the labels of a choice; needed when the spec names none.
        allow_rejects: the share of items that may be longer than the base's context.
        until: ends it early where the verdict is clear; by default every item is asked.

    Raises:
        UserError: no items, an answer that isn't among the labels, or a prompt that names an
            unknown column.
        TooLongError: more over-long items than allowed.
    """
    plan = make_plan(
        subject,
        split,
        spec,
        arm=arm,
        shots=shots,
        items=items,
        labels=labels,
        answerer=Answerer(base, adapter_id, adapter_path, scale, backend),
        root=store.root.parent,
    )
    identity = identity_of(plan)
    found = _kept(store, catalog, identity)
    if found:
        result = read_result(found.path, manifest_in(found.path, EvalMeta))
    else:
        asked = engine() if callable(engine) else engine
        ended = _score_until(store, asked, plan, identity, until) if until else None
        result = ended or _score(store, catalog, asked, plan, identity)
    _check_rejects(result, allow_rejects)
    return result


def _kept(store: Store, catalog: Catalog, identity: dict[str, Any]) -> ObjectRef | None:
    """Return the object if it was made before, acknowledged also after a kill in between."""
    object_id = digest({"kind": KIND, "identity": identity})
    if store.find(KIND, object_id) is None:
        return None
    found = store.get(KIND, object_id)
    if not catalog.knows(found):
        catalog.commit_soon(found)
    return found


def _score(
    store: Store, catalog: Catalog, engine: Backend, plan: ScoringPlan, identity: dict[str, Any]
) -> EvalResult:
    journal = _journal(store, plan, identity)
    began, before = time.monotonic(), engine.tokens_processed
    samples, rejects = _asked(store, engine, plan, journal)
    seconds, after = time.monotonic() - began, engine.tokens_processed
    interval, answerer = mean_interval(scores_of(samples)), plan.answerer
    meta = EvalMeta(
        subject=plan.subject,
        split=plan.split,
        arm=plan.arm.name,
        n=interval.n,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        prompt_tokens_mean=mean_prompt_tokens(samples),
        base=answerer.base.name,
        adapter_id=answerer.adapter_id,
        scale=identity["scale"],
        rejects=len(rejects),
        read_tokens=None if before is None or after is None else after - before,
        read_seconds=round(seconds, 3),
    )
    parents = [Parent(answerer.adapter_id, "adapter")] if answerer.adapter_id else []
    with store.draft() as folder:
        write_results(folder, samples, rejects)
        ref = store.put(KIND, folder, identity=identity, parents=parents, meta=meta)
    catalog.commit_soon(ref)
    journal.discard()
    return _result(plan, interval, samples, rejects, ref.id)


def _score_until(
    store: Store, engine: Backend, plan: ScoringPlan, identity: dict[str, Any], rule: EarlyRule
) -> EvalResult | None:
    """Ask batch by batch until the verdict is clear; None where it never is before the last.

    The journal is that of the whole evaluation, which asks only what is missing then.
    """
    journal = _journal(store, plan, identity)
    samples: tuple[Sample, ...] = ()
    rejects: tuple[RejectedItem, ...] = ()
    *looked_at, _ = batches([question.item.cluster for question in plan.questions])
    for batch in looked_at:
        part = replace(plan, questions=tuple(plan.questions[position] for position in batch))
        asked = _asked(store, engine, part, journal)
        samples, rejects = samples + asked.samples, rejects + asked.rejects
        if samples and rule.settled(scores := scores_of(samples)):
            interval, of = rule.interval(scores), len(plan.questions)
            return replace(_result(plan, interval, samples, rejects), of=of)
    return None


def _result(
    plan: ScoringPlan,
    interval: Interval,
    samples: tuple[Sample, ...],
    rejects: tuple[RejectedItem, ...],
    object_id: str = "",
) -> EvalResult:
    return EvalResult(
        id=object_id,
        subject=plan.subject,
        split=plan.split,
        arm=plan.arm.name,
        n=interval.n,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        prompt_tokens_mean=mean_prompt_tokens(samples),
        samples=samples,
        rejects=rejects,
        cached=False,
    )


def _journal(store: Store, plan: ScoringPlan, identity: dict[str, Any]) -> Journal:
    """Return the answers so far, of a process that was killed or of a score that ended early."""
    key = digest({"kind": KIND, "identity": identity})
    journal = Journal(store.root / FOLDER / f"{key}.jsonl")
    if journal.known:
        _log.info("%s: %d answers are there already", plan.subject, journal.known)
    return journal


def _asked(store: Store, engine: Backend, plan: ScoringPlan, journal: Journal) -> ScoredItems:
    """Ask what isn't in the journal."""
    from evals.scoring.score import score

    engine.journal = journal
    try:
        with one_line_when_full(store.root):
            return score(plan, engine)
    finally:
        engine.journal = None


def _check_rejects(result: EvalResult, allowed: float) -> None:
    rejected, asked = len(result.rejects), result.of or result.n + len(result.rejects)
    if rejected > allowed * asked or not result.n:
        told = commonest((reject.reason, _place(reject)) for reject in result.rejects)
        first = result.rejects[0]
        raise TooLongError(
            f"{result.subject}: {rejected} of {asked} items can't be scored: {told}",
            where=_place(first) if first.source_file else None,
            expected=f"at most {allowed:.1%}",
            fix="use fewer examples, a longer context, or raise allow_rejects of the dataset",
        )


def _place(reject: RejectedItem) -> str:
    """Return file and line, or the number of an lm-eval task's document."""
    if reject.source_file:
        return f"{reject.source_file}:{reject.source_line}"
    return f"item {reject.row_uid}"
