"""The log-probabilities of a prompt's own tokens. Heavy at import (torch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from evals.engine.limits import NotFiniteError
from evals.engine.live.ask import Piece, Token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evals.engine.forward import Forward
    from evals.engine.live.job import LiveJob

LOGITS = 2**25
"""Logits held at once, in numbers: a longer prompt is read in parts, each with all before it."""


def tell_prompt(forward: Forward, job: LiveJob, where: str) -> bool:
    """Tell the tokens of a prompt, as the first piece of its answer.

    Args:
        forward: the model, with the answer's adapter.
        job: the answer; ended as failed where a logit is no finite number.
        where: the base, for messages.

    Returns:
        Whether the answer can be written.
    """
    top = job.stream.ask.logprobs or 0
    try:
        tokens = (Token(job.prompt[0]), *_scored(forward, job.prompt, top))
    except FloatingPointError:
        job.end("failed", NotFiniteError(0, forward.broken_layer(job.prompt), where))
        return False
    job.echoed = True
    job.stream.tell(Piece("", tokens))
    return True


def _scored(forward: Forward, prompt: Sequence[int], top: int) -> Iterator[Token]:
    """Yield every token but the first, with its log-probability behind those before it."""
    ids = np.array([prompt], dtype=np.int64)
    each = max(1, LOGITS // forward.vocabulary)
    for start in range(0, len(prompt) - 1, each):
        end = min(start + each, len(prompt) - 1)
        keep = np.zeros((1, end), dtype=np.bool_)
        keep[0, start:] = True
        logits = forward.plain(ids[:, :end], keep)
        if not bool(torch.isfinite(logits.amax(-1)).all()):
            raise FloatingPointError
        logprobs = logits.log_softmax(-1)
        likeliest = logprobs.topk(min(top, logprobs.shape[-1]), -1)
        chosen = torch.from_numpy(ids[0, start + 1 : end + 1]).to(logprobs.device)
        found = logprobs.gather(-1, chosen[:, None]).flatten()
        parts = (chosen, found, likeliest.indices, likeliest.values)
        for token, logprob, others, theirs in zip(*(p.tolist() for p in parts), strict=True):
            yield Token(token, logprob, tuple(zip(others, theirs, strict=True)))
