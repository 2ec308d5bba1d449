"""The next token of each row: the likeliest, or drawn. Heavy at import (torch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from evals.engine.live.ask import Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.engine.live.job import LiveJob


def choose(logits: torch.Tensor, jobs: Sequence[LiveJob]) -> list[Token | None]:
    """Return each row's next token; None where no logit is a finite number.

    Args:
        logits: (rows, vocabulary) in fp32.
        jobs: whose rows they are.
    """
    # One pass gives both: a maximum that isn't finite means that there is none.
    highest, best = logits.max(-1)
    finite = torch.isfinite(highest).tolist()
    tokens = best.tolist()
    drawn = [n for n, job in enumerate(jobs) if job.stream.ask.temperature and finite[n]]
    if drawn:
        for place, token in zip(drawn, _draw(logits, jobs, drawn), strict=True):
            tokens[place] = token
    told = [n for n, job in enumerate(jobs) if job.stream.ask.logprobs is not None and finite[n]]
    scored = _scored(logits, jobs, told, tokens) if told else {}
    return [scored.get(n, Token(token)) if finite[n] else None for n, token in enumerate(tokens)]


def _draw(logits: torch.Tensor, jobs: Sequence[LiveJob], places: Sequence[int]) -> list[int]:
    """Invert the distribution at one random number a row.

    Tokens stay in the order of their ids: what rounds otherwise beside other rows moves the bounds
    between them by as little, where an order by likelihood would swap two that are nearly equal.
    """
    asks = [jobs[place].stream.ask for place in places]

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    shares = (logits[list(places)].double() / column([a.temperature for a in asks])).softmax(-1)
    if any(ask.top_p < 1 for ask in asks):
        shares = _nucleus(shares, column([a.top_p for a in asks]))
    sums = shares.cumsum(-1)
    at = column([jobs[place].draws.random() for place in places]) * sums[:, -1:]
    found = torch.searchsorted(sums, at, right=True).flatten().tolist()
    return [min(int(token), logits.shape[-1] - 1) for token in found]


def _nucleus(shares: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Leave only the likeliest tokens of each row that make up a share, and those equal to them."""
    ordered = shares.sort(-1, descending=True).values
    needed = (ordered.cumsum(-1) - ordered < top).sum(-1, keepdim=True)
    least = ordered.gather(-1, needed - 1)
    return torch.where(shares >= least, shares, 0)


def _scored(
    logits: torch.Tensor, jobs: Sequence[LiveJob], places: Sequence[int], tokens: Sequence[int]
) -> dict[int, Token]:
    logprobs = logits[list(places)].log_softmax(-1)
    asked = [jobs[place].stream.ask.logprobs or 0 for place in places]
    most = min(max(asked), logits.shape[-1])
    values, ids = (part.tolist() for part in logprobs.topk(most, -1))
    found: dict[int, Token] = {}
    for row, (place, wanted) in enumerate(zip(places, asked, strict=True)):
        chosen = tokens[place]
        top = tuple(zip(ids[row][:wanted], values[row][:wanted], strict=True))
        found[place] = Token(chosen, float(logprobs[row, chosen]), top)
    return found
