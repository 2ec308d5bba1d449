"""A base's own answers: asked by its chat template, greedily, and kept.

They are kept in a journal that stays, an answer a line under the digest of what was asked: killed,
it goes on, and what was asked once is not asked again. Import this module late: it loads lm_eval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lm_eval.api.instance import Instance

from evals.engine.journal import Journal
from evals.engine.limits import OverlongError
from evals.tasks.task import AskedForm
from registry.chat.chat import TurnRefusedError
from registry.chat.form import answer_form

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lm_eval.api.model import LM

    from evals.engine.backend import Backend

NEARLY = 0.98
"""Of the limit: an answer that was cut may have a token less when its text is read again."""


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What a base said.

    Attributes:
        text: the answer, without a thought.
        ended: whether it ended by itself, before the limit.
        tokens: that the base read and wrote for it.
    """

    text: str
    ended: bool
    tokens: int


def own_answers(
    engine: Backend,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    kept: Path,
    *,
    max_new_tokens: int,
) -> list[OwnAnswer | None]:
    """Ask the base alone; None where its template refuses, or the context is too short.

    Args:
        engine: the scoring engine over the base.
        conversations: turns, each of which ends with a question.
        kept: the journal; of one base and engine.
        max_new_tokens: the longest answer.
    """
    chat = engine.chat
    asking = AskedForm(
        (), answer_form(chat), chat.texts_of(chat.specials), max_new_tokens=max_new_tokens
    )
    contexts: dict[int, str] = {}
    for place, turns in enumerate(conversations):
        try:
            contexts[place] = chat.context([dict(turn) for turn in turns])
        except TurnRefusedError:
            continue
    engine.use(None)
    engine.journal = Journal(kept)
    try:
        written = _written(engine, contexts, asking)
    finally:
        engine.journal = None
    found: list[OwnAnswer | None] = [None] * len(conversations)
    for place, text in written.items():
        asked, said = chat.tokenizer([contexts[place], text], add_special_tokens=False)["input_ids"]
        ended = len(said) < NEARLY * max_new_tokens
        found[place] = OwnAnswer(asking.answer_in(text), ended, len(asked) + len(said))
    return found


def _written(engine: Backend, contexts: Mapping[int, str], asking: AskedForm) -> dict[int, str]:
    """Return what was written for each place, without those that are too long."""
    places = list(contexts)
    wanted = asking.generation()
    while places:
        requests = [
            Instance("generate_until", {}, (contexts[place], dict(wanted)), index, (None, None, 1))
            for index, place in enumerate(places)
        ]
        try:
            said = cast("LM", engine).generate_until(requests)
        except OverlongError as error:
            long = {one.index for one in error.requests}
            places = [place for index, place in enumerate(places) if index not in long]
        else:
            return dict(zip(places, said, strict=True))
    return {}
