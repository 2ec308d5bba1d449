"""Replay: rows whose answer the base already gets right, so that it goes on getting them right.

A guard's or met capability's train rows are asked of the base by the prompt they are measured by,
and only those it answers right are replayed, with the base's own words as the answer. Rows of free
datasets (a chat corpus in the pool) have no scorer: they are asked as they stand, and whatever the
base says is replayed (judge/free.py). The base's own text asks for no rows (judge/own_text.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.measure.measure import measure
from pipeline.selection.budget import Supply
from pipeline.selection.candidates import free_datasets
from pipeline.selection.choose import choose_nearest
from pipeline.selection.selection import asked_of
from pipeline.spec.pool import OWN_TEXT, own_text_share
from pipeline.spec.subjects import subjects

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pipeline.gap import GapReport
    from pipeline.selection.budget import Budget
    from pipeline.selection.candidates import Candidates
    from pipeline.spec.spec import Spec
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.chat.chat import Chat
    from registry.datasets.versions.row import Row

PASSES = 0.5
"""The least score of a right answer; built-in scorers give 0 or 1."""

MOST_SCORED = 3200
_FEWEST_SCORED = 50
_MEASURED = 100  # rows whose lengths stand for all


@dataclass(frozen=True, slots=True)
class PassingRow:
    """A row that the base gets right.

    Attributes:
        row: it.
        answer: the base's own, where that differs.
        cut: whether that goes on where the limit of tokens ended it.
    """

    row: Row
    answer: str | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class ReplayedRow:
    """A row to replay; `near` is its cosine to a lost item, None if it is not for one."""

    passing: PassingRow
    near: float | None


@dataclass(frozen=True)
class ReplaySource:
    """What can be replayed under one name: a measured subject, free dataset, or own text."""

    name: str
    dataset: str
    subject: Subject | None


def sources(ws: OpenWorkspace, found: GapReport) -> tuple[ReplaySource, ...]:
    """Return all that can be replayed: guards and met capabilities with data, then the rest.

    Free datasets, and the base's own text, stand for what has no rows of its own. Witnesses are
    left out: nothing of them is ever trained on.
    """
    unseen = ws.spec.witnesses
    kept = [
        ReplaySource(what.name, what.spec.data, what)
        for what in subjects(ws.spec)
        if what.spec.data
        and what.name not in unseen
        and (what.role == "guard" or found.verdict(what.name) == "met")
    ]
    general = () if own_text_share(ws.spec) is None else (OWN_TEXT,)
    return (*kept, *(ReplaySource(name, name, None) for name in (*free_datasets(ws), *general)))


def own_text_rows(spec: Spec, budget: Budget | None) -> int:
    """Return how many rows of the base's own text are wanted, at first or in a mending round."""
    if budget is not None:
        return budget.replay.get(OWN_TEXT, 0)
    return round((own_text_share(spec) or 0.0) * spec.train.budget_rows)


def supply_of(found: GapReport, source: ReplaySource, candidates: Candidates, chat: Chat) -> Supply:
    """Return how many rows of `source` there are, how long they are, and what can be lost of it."""
    rows = candidates.rows(source.dataset)
    if source.subject is None:
        rows = [row for row in rows if asked_of(row)]
    texts = [row.text for row in rows[:_MEASURED]]
    lengths = [len(ids) for ids in chat.tokenizer(texts)["input_ids"]] if texts else [0]
    tokens = sum(lengths) / len(lengths)
    if source.subject is None:
        return Supply(len(rows), tokens, 1.0)
    labels = candidates.labels_of(source.name)
    chance = 1 / len(labels) if labels else 0.0
    known = {finding.capability: finding.base for finding in found.findings} | found.guards
    return Supply(len(rows), tokens, max(0.0, known[source.name].mean - chance) / (1 - chance))


def passing(
    ws: Resolved,
    ui: Ui,
    candidates: Candidates,
    what: Subject,
    wanted: int,
    without: Collection[int] = (),
) -> tuple[list[PassingRow], int]:
    """Return rows of `what` that the base gets right, by their hashes, and tokens asked for them.

    About twice as many rows as wanted are asked, at most 3,200; none of `without`.
    """
    from evals.tasks.capability import items_from_rows

    there = [row for row in candidates.rows(what.spec.data or "") if row.uid not in without]
    rows = candidates.fitting(there[: scored_rows(wanted)], what.name)
    if not rows:
        return [], 0
    items = items_from_rows(rows, what.spec, whole=True)
    result = measure(ws, ui, what, base=ws.spec.train.base, items=items, split="train")
    by_uid = {row.uid: row for row in rows}
    scored = what.spec.answer != "perplexity"
    passed = [sample for sample in result.samples if sample.score >= PASSES or not scored]
    own = [_own(sample.answer, sample.expected) if scored else None for sample in passed]
    cut = _cut(ws, what, own)
    found = [
        PassingRow(by_uid[sample.row_uid], said, goes_on)
        for sample, said, goes_on in zip(passed, own, cut, strict=True)
    ]
    return found, sum(sample.prompt_tokens for sample in result.samples)


def _cut(ws: Resolved, what: Subject, own: Sequence[str | None]) -> list[bool]:
    """Return which of the base's answers reached the limit of what it may write.

    Trained with an end behind it, such an answer would teach to stop in mid-sentence.
    """
    if what.spec.answer in {"choice", "perplexity"} or not own:
        return [False] * len(own)
    from evals.scoring.own_answers import NEARLY

    tokenizer = ws.models.chat(ws.spec.train.base).tokenizer
    lengths = map(len, tokenizer([one or "" for one in own], add_special_tokens=False)["input_ids"])
    return [length >= NEARLY * what.spec.max_new_tokens for length in lengths]


def scored_rows(wanted: int) -> int:
    """Return how many rows are asked for `wanted`: 50 times a power of two, at most 3,200.

    Steps, so that a few rows more in a later round find the same evaluation again.
    """
    asked = _FEWEST_SCORED
    while asked < 2 * wanted and asked < MOST_SCORED:
        asked *= 2
    return asked


def pick(
    there: Sequence[PassingRow],
    wanted: int,
    had: Collection[int],
    vectors: Any,
    lost: Any,
) -> list[ReplayedRow]:
    """Choose rows to replay: those that were replayed before, then the nearest to what was lost.

    Args:
        there: rows that may be replayed, in a fixed order.
        wanted: how many in all; fewer are returned if fewer are there.
        had: uids that were replayed before.
        vectors: unit rows of `there`, [n, d], dense or sparse; None where nothing was lost.
        lost: those of the items that were lost, [m, d]; None as before.
    """
    kept = [i for i, one in enumerate(there) if one.row.uid in had][:wanted]
    rest = sorted(set(range(len(there))) - set(kept))
    missing = min(wanted - len(kept), len(rest))
    near: dict[int, float] = {}
    if missing > 0 and vectors is not None and lost is not None and lost.shape[0]:
        picks = choose_nearest(vectors[rest], lost, missing)
        near = {rest[one.position]: one.score for one in picks}
    # Near-duplicates of what is replayed keep a skill better than nothing does.
    filler = [i for i in rest if i not in near][: max(0, missing - len(near))]
    return [ReplayedRow(there[i], near.get(i)) for i in (*kept, *near, *filler)]


def _own(answer: str, expected: str) -> str | None:
    said = answer.strip()
    return said if said and said != expected else None
