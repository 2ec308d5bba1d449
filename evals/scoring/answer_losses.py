"""How unlikely a base finds given answers: the mean loss of a token, by the base alone, and kept.

Import this module late: it loads lm_eval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from lm_eval.api.instance import Instance

from evals.engine.journal import Journal
from evals.engine.limits import OverlongError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lm_eval.api.model import LM

    from evals.engine.backend import Backend


@dataclass(frozen=True)
class AnswerLosses:
    """Mean losses of the answers' tokens, NaN where there is none to tell; and tokens read."""

    losses: tuple[float, ...]
    tokens: int


def answer_losses(engine: Backend, answered: Sequence[tuple[str, str]], kept: Path) -> AnswerLosses:
    """Return what the base alone makes of answers, as plain text: the question, a line, the answer.

    Args:
        engine: the scoring engine over the base.
        answered: question and answer; no loss for an answer that is empty, or with its question
            too long for the context.
        kept: the journal; of one base and engine.
    """
    asked = {
        place: (question, f"\n{answer}" if question else answer)
        for place, (question, answer) in enumerate(answered)
        if answer.strip()
    }
    engine.use(None)
    engine.journal = Journal(kept)
    try:
        scores = _scored(engine, asked)
    finally:
        engine.journal = None
    losses, tokens = [math.nan] * len(answered), 0
    for place, score in scores.items():
        context, answer = (
            len(engine.chat.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in asked[place]
        )
        losses[place] = -score / max(1, answer)
        tokens += context + answer
    return AnswerLosses(tuple(losses), tokens)


def _scored(engine: Backend, asked: dict[int, tuple[str, str]]) -> dict[int, float]:
    """Return the log-likelihood of each answer, without those that are too long."""
    places = list(asked)
    while places:
        requests = [
            Instance("loglikelihood", {}, asked[place], index) for index, place in enumerate(places)
        ]
        try:
            found = cast("LM", engine).loglikelihood(requests)
        except OverlongError as error:
            long = {one.index for one in error.requests}
            places = [place for index, place in enumerate(places) if index not in long]
        else:
            return {place: score for place, (score, _) in zip(places, found, strict=True)}
    return {}
