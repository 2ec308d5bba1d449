"""A base's own right answers, in place of the dataset's: they move it least, and are right.

The base draws answers to a row by the prompt that its capability is measured by, and the first one
that the capability's scorer finds right is trained on: a draw from what it says anyway, given that
it is right. Of a free dataset a row is asked as it stands, which is how it is trained, and scored
against its own answer, if the scorer finds that right.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.measure.measure import zero_shot
from pipeline.selection.judge.answers import why_unusable
from pipeline.selection.replay import PASSES
from pipeline.selection.selection import asked_of, render
from pipeline.spec.subjects import subject
from registry.chat.tokens import TextTokens
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.scoring.own_answers import OwnAnswer
    from evals.tasks.capability import CapabilitySpec, GuardSpec, Item
    from evals.tasks.scorers import Scorer
    from pipeline.selection.judge.readings import Readings
    from pipeline.spec.subjects import Subject
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.versions.row import Row

VERSION = 1
"""Raised whenever other answers could be chosen."""

OWN, NONE_RIGHT = "of its own", "the dataset's, none drawn was right"
NOT_ASKED = "the dataset's, can't be asked or scored"

_BROKEN = frozenset(("endless repetition", "answers without end", "empty answers"))


@dataclass(frozen=True)
class OwnRight:
    """What was found: uid -> answer, and what became of the rows: what -> how many."""

    answers: Mapping[int, str]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Question:
    row: Row
    item: Item
    context: str


def own_right(
    ws: OpenWorkspace, readings: Readings, name: str, rows: Sequence[Row], draws: int
) -> OwnRight:
    """Return the base's own right answers to rows for capability `name`.

    None of a capability whose answer isn't generated (`choice`, `perplexity`).

    Args:
        ws: whose spec has the capability.
        readings: who asks the base.
        name: the capability.
        rows: of its dataset, or of others, which are asked as they stand.
        draws: answers that are drawn to a row at most.

    Raises:
        UserError: the spec's own scorer can't be run, or breaks for an answer.
    """
    from evals.tasks.scorers import scorer_of
    from pipeline.training.examples.encode import RowRejectedError, encode_row

    what = subject(ws.spec, name)
    if not is_generated(what.spec):
        return OwnRight({}, {})
    base = ws.spec.train.base
    scorer, least = scorer_of(what.spec, ws.root), _least(what.spec)
    asked = [_question(ws, what, row, scorer, least) for row in rows]
    questions = [one for one in asked if one is not None]

    def right(place: int, said: OwnAnswer) -> bool:
        one, text = questions[place], said.text.strip()
        if why_unusable(text, "", ended=said.ended) in _BROKEN:
            return False
        if scorer(text, one.item) < least:
            return False
        example: Any = render(ws, one.row, name, text)
        try:
            encode_row(ws.models.get(base), example)
        except RowRejectedError:
            return False
        return True

    found = readings.first_right(
        [one.context for one in questions],
        draws,
        name,
        max_new_tokens=what.spec.max_new_tokens,
        right=right,
    )
    answers = {
        one.row.uid: said.text.strip()
        for one, said in zip(questions, found, strict=True)
        if said is not None
    }
    counts = Counter(
        {
            OWN: len(answers),
            NONE_RIGHT: len(questions) - len(answers),
            NOT_ASKED: len(rows) - len(questions),
        }
    )
    return OwnRight(answers, +counts)


def is_generated(spec: CapabilitySpec | GuardSpec) -> bool:
    """Return whether an answer is written, not chosen or only read."""
    return spec.answer not in {"choice", "perplexity"}


def _least(spec: CapabilitySpec | GuardSpec) -> float:
    """Return the least score of a right answer: who always answers like that reaches the goal."""
    return max(PASSES, getattr(spec, "goal", 0.0))


def _question(
    ws: OpenWorkspace, what: Subject, row: Row, scorer: Scorer, least: float
) -> _Question | None:
    """Return what a row asks; None where it can't be asked, or its answer can't be scored."""
    from evals.tasks.capability import items_from_rows
    from evals.tasks.prompts import render_messages

    if row.kind == "text":
        return None
    chat, own = ws.models.chat(ws.spec.train.base), row.dataset == what.spec.data
    try:
        (item,) = items_from_rows([row], what.spec, whole=True)
        turns = render_messages(zero_shot(what), item, ()) if own else list(asked_of(row))
        score = scorer(item.expected, item)
        if not turns or (score < least and not own):
            return None
        context = chat.context(turns, json.loads(row.tools) if row.tools else None)
    except UserError:
        return None
    room = len(TextTokens(chat.tokenizer).whole(context)) + what.spec.max_new_tokens
    if room > ws.models.identity(ws.spec.train.base).context:
        return None
    return _Question(row, item, context)
