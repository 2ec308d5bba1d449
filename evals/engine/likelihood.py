"""Log-likelihoods of requests laid out as rows: in batches by tokens, behind shared prefixes.

Heavy at import (torch). What a request's tokens cost is read off one row, or several where a model
takes no tries; it is told as soon as the last of them has been read.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evals.engine.layout import RequestRow, batch_of
from evals.engine.limits import NotFiniteError, out_of_memory
from evals.engine.tree import Segment, batches, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evals.engine.forward import Forward
    from evals.engine.kv import Prefix

    Done = Callable[[int, Any], None]


class Likelihoods:
    """Reads rows through a model.

    Args:
        forward: the model.
        token_budget: padded tokens a batch; halved for good when memory runs out.
        logit_budget: logits held at once, in numbers.
    """

    def __init__(self, forward: Forward, token_budget: int, logit_budget: int) -> None:
        """See the class."""
        self._forward = forward
        self._token_budget = token_budget
        self._logit_budget = logit_budget

    def read(self, rows: Sequence[RequestRow], count: int, done: Done) -> None:
        """Tell the score of each of `count` requests, and whether it is greedy, when it is known.

        Raises:
            NotFiniteError: the model gave no number; what came before has been told.
        """
        if not self._forward.packs:
            rows = [
                RequestRow(r.context, chain, r.requests) for r in rows for chain in r.tree.chains()
            ]
        tally = _Tally(rows, count, done)
        contexts = [row.context for row in rows]
        parts = segments(contexts) if self._forward.shares else (_all(rows),)
        for part in parts:
            prefix = None
            if part.prefix:
                prefix = self._forward.prefix(contexts[part.rows[0]][: part.prefix].tolist())
            self._segment([rows[r] for r in part.rows], prefix, tally)

    def _segment(self, rows: list[RequestRow], prefix: Prefix | None, tally: _Tally) -> None:
        start = prefix.tokens if prefix else 0
        lengths = [len(row.context) - start + len(row.tree.tokens) for row in rows]
        weights = [(1 + len(row.tree.tokens)) * self._forward.vocabulary for row in rows]
        todo = [
            [rows[place] for place in batch]
            for batch in batches(
                lengths, weights, tokens=self._token_budget, weight=self._logit_budget
            )
        ]
        todo.reverse()
        while todo:
            batch = todo.pop()
            try:
                read = self._read(batch, prefix)
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
                self._token_budget = max(1, self._token_budget // 2)
                half = len(batch) // 2
                todo += [batch[half:], batch[:half]]
                continue
            tally.add(batch, *read)
            if tally.broken:
                row, request = tally.broken
                layer = self._forward.broken_layer([*row.context, *row.tree.tokens])
                raise NotFiniteError(request, layer)

    def _read(
        self, rows: Sequence[RequestRow], prefix: Prefix | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Requests, log-probabilities and greediness of every predicted token of the rows."""
        batch = batch_of(rows, prefix.tokens if prefix else 0)
        if self._forward.packs:
            logits = self._forward.read(batch, prefix).logits
        else:
            logits = self._forward.plain(batch.ids, batch.keep)
        # Each row keeps its context's last token and its nodes, in the order of slots.
        sizes = np.array([1 + len(row.tree.tokens) for row in rows])
        first = np.cumsum(sizes) - sizes
        at = np.concatenate([f + row.tree.slots for f, row in zip(first, rows, strict=True)])
        tokens = np.concatenate([row.tree.targets for row in rows])
        requests = np.concatenate([row.requests[row.tree.owners] for row in rows])
        logs, best = _read_off(logits, torch.from_numpy(at), torch.from_numpy(tokens))
        return requests, logs.double().cpu().numpy(), best.cpu().numpy()


@torch.inference_mode()
def _read_off(
    logits: torch.Tensor, places: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of wanted tokens at places, and whether each is the likeliest there.

    The logits are used up: a passage over a large vocabulary costs as much as a layer, so that
    there are three, and `argmax` looks only where the wanted token has the highest logit.
    """
    places, wanted = places.to(logits.device), wanted.to(logits.device)
    highest = logits.amax(-1)
    # Below the highest first: beside large logits the sum of a row would lose its last digits.
    below = logits[places, wanted] - highest[places]
    best = below == 0
    hits = best.nonzero().flatten()
    best[hits] = logits[places[hits]].argmax(-1) == wanted[hits]  # of equals, the first counts
    rest = logits.sub_(highest.unsqueeze(-1)).exp_().sum(-1).log_()
    return below - rest[places], best


def tokens_of(rows: Sequence[RequestRow], count: int) -> NDArray[np.int64]:
    """How many tokens each of `count` requests reads, (count,)."""
    lengths = np.zeros(count, dtype=np.int64)
    for row in rows:
        read = np.bincount(row.tree.owners, minlength=len(row.requests)) - 1
        lengths[row.requests] = len(row.context) + read
    return lengths


class _Tally:
    """Sums log-probabilities up to scores; a request is told when its last row has been read."""

    def __init__(self, rows: Sequence[RequestRow], count: int, done: Done) -> None:
        self._scores = np.zeros(count, dtype=np.float64)
        self._greedy = np.ones(count, dtype=np.bool_)
        self._left = np.zeros(count, dtype=np.int64)
        for row in rows:
            self._left[row.requests] += 1
        self._done = done
        self.broken: tuple[RequestRow, int] | None = None

    def add(
        self, rows: Sequence[RequestRow], requests: NDArray[np.int64], logs: NDArray[np.float64],
        best: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Take what was read of these rows, for each predicted token; tell what is complete."""
        np.add.at(self._scores, requests, logs)
        np.logical_and.at(self._greedy, requests, best)
        for row in rows:
            self._left[row.requests] -= 1
            for request in row.requests[self._left[row.requests] == 0].tolist():
                score = float(self._scores[request])
                if isfinite(score):
                    self._done(request, (score, bool(self._greedy[request])))
                else:
                    self.broken = self.broken or (row, request)


def _all(rows: Sequence[RequestRow]) -> Segment:
    return Segment(0, tuple(range(len(rows))))
