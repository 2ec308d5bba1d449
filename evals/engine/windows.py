"""Whole texts, in windows where they are longer than the context. Heavy at import (lm_eval)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval import utils

from evals.engine.limits import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Windows = list[tuple[Any, list[int], list[int]]]


def score_windows(
    texts: Sequence[list[int]],
    score: Callable[[Windows], list[tuple[float, bool]]],
    *,
    prefix: int,
    window: int,
) -> list[float]:
    """Return the log-likelihood of each text, the sum of that of its windows.

    Args:
        texts: the ids of each.
        score: an engine's `_loglikelihood_tokens`.
        prefix: the token that stands before a text.
        window: the most tokens of one.

    Raises:
        NotFiniteError: names the text, not the window.
    """
    windows: Windows = []
    text_of: list[int] = []
    for number, ids in enumerate(texts):
        made = utils.get_rolling_token_windows(
            token_list=ids, prefix_token=prefix, max_seq_len=window, context_len=1
        )
        windows += [(None, *utils.make_disjoint_window(one)) for one in made]
        text_of += [number] * (len(windows) - len(text_of))
    totals = [0.0] * len(texts)
    try:
        for number, (found, _) in zip(text_of, score(windows), strict=True):
            totals[number] += found
    except NotFiniteError as error:
        raise NotFiniteError(text_of[error.request], error.layer) from None
    return totals
