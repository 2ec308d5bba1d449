"""One answer at a time by transformers' own loop. Heavy at import (torch, transformers).

For models whose layers keep a running state, which slots may not touch: see `one_by_one`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from evals.engine.limits import NotFiniteError
from evals.engine.live.choose import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evals.engine.forward import Forward
    from evals.engine.live.job import LiveJob


def answer_alone(
    model: Any, forward: Forward, job: LiveJob, where: str, is_closed: Callable[[], bool]
) -> None:
    """Write one answer to its end.

    Args:
        model: the language model, with the answer's adapter.
        forward: says which layer is broken, where one is.
        job: the answer.
        where: the base, for messages.
        is_closed: whether nobody may be answered any more.
    """
    ids = torch.tensor([job.prompt], device=model.device)
    ended = False

    def chosen(_tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leave transformers no choice but ours."""
        token = choose(scores.float(), [job])[0]
        if token is None:
            layer = forward.broken_layer([*job.prompt, *job.answer])
            raise NotFiniteError(0, layer, where)
        nonlocal ended
        ended = job.take(token)
        only = torch.full_like(scores, -torch.inf)
        only[0, token.id] = 0
        return only

    def stops(tokens: torch.Tensor, _scores: Any, **_kwargs: Any) -> torch.Tensor:
        nonlocal ended
        if (job.stream.cancelled or is_closed()) and not ended:
            ended = job.end("cancelled")
        return torch.tensor([ended], device=tokens.device)

    with torch.inference_mode(), _bare(model):
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=GenerationConfig(
                max_new_tokens=job.limit, do_sample=False, pad_token_id=min(job.ends)
            ),
            logits_processor=[chosen],
            stopping_criteria=[stops],
        )


@contextmanager
def _bare(model: Any) -> Iterator[None]:
    """Without the checkpoint's own settings, a repetition penalty among them."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
