"""Sequences in slots: the prompts of several are read, and all of them grow token by token.

Heavy at import (torch). Row i is in slot i. A row that ends leaves, and the last ones take its
slot, so that no step computes for a row that has finished.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from evals.engine.tree import PaddedBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from evals.engine.forward import Forward
    from evals.engine.kv import Prefix, SlotCache


class Growing(Protocol):
    """A prompt and the tokens of its answer so far."""

    @property
    def prompt(self) -> list[int]:
        """What is read first."""

    @property
    def answer(self) -> list[int]:
        """What was chosen so far."""


J = TypeVar("J", bound=Growing)


@dataclass(eq=False)
class Rows(Generic[J]):
    """Jobs in slots, job i in slot i.

    Attributes:
        forward: the model.
        slots: their KV cache.
        prefix: the cached tokens before every prompt.
        jobs: whose rows they are.
    """

    forward: Forward
    slots: SlotCache
    prefix: Prefix | None = None
    jobs: list[J] = field(default_factory=list)

    @property
    def start(self) -> int:
        """How many tokens stand before every row."""
        return self.prefix.tokens if self.prefix else 0

    def read(self, new: Sequence[J]) -> torch.Tensor:
        """Read the last jobs, `new`, into their slots; their next tokens' logits."""
        own = [[*job.prompt, *job.answer][self.start :] for job in new]
        length = max(map(len, own))
        ids = np.zeros((len(new), length), dtype=np.int64)
        keep = np.zeros(ids.shape, dtype=np.bool_)
        for row, tokens in enumerate(own):
            ids[row, : len(tokens)] = tokens
            keep[row, len(tokens) - 1] = True
        positions = np.broadcast_to(np.arange(length) + self.start, ids.shape)
        read = self.forward.read(PaddedBatch(ids, positions.copy(), keep), self.prefix)
        first = len(self.jobs) - len(new)
        self.slots.fill(first, read.cache, [len(tokens) for tokens in own])
        return read.logits

    def step(self) -> torch.Tensor:
        """Read every row's last token; the next tokens' logits, (rows, vocabulary)."""
        ids = np.array([job.answer[-1] for job in self.jobs], dtype=np.int64)
        positions = self.slots.used[: len(self.jobs)] + self.start
        return self.forward.step(ids, positions, self.slots, self.prefix)

    def leave(self, done: set[int]) -> None:
        """Drop the rows at these places; the last rows take their slots."""
        if not done:
            return
        count = len(self.jobs) - len(done)
        holes = [place for place in sorted(done) if place < count]
        movers = [place for place in range(count, len(self.jobs)) if place not in done]
        if holes:
            self.slots.move(movers, holes)
        for mover, hole in zip(movers, holes, strict=True):
            self.jobs[hole] = self.jobs[mover]
        del self.jobs[count:]
