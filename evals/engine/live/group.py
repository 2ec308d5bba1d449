"""The answers of one adapter: their slots, which grow as they need it. Heavy at import (torch)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from evals.engine.generate import MAX_ROWS
from evals.engine.kv import SlotCache
from evals.engine.limits import NotFiniteError, out_of_memory
from evals.engine.live.choose import choose
from evals.engine.live.echo import tell_prompt
from evals.engine.rows import Rows
from evals.engine.tree import batches
from registry.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from evals.engine.forward import Forward
    from evals.engine.live.job import LiveJob


class Group:
    """Answers that are written together, by one adapter.

    Args:
        forward: the model, with this adapter whenever a method is called that computes.
        key: the adapter and its scale.
        token_budget: padded tokens of prompts read at once.
        where: the base, for messages.

    Attributes:
        waiting: those whose prompts are to be read next.
    """

    def __init__(
        self, forward: Forward, key: tuple[Path | None, float], token_budget: int, where: str
    ) -> None:
        """See the class."""
        self.key = key
        self.waiting: deque[LiveJob] = deque()
        self._forward = forward
        self._token_budget = token_budget
        self._where = where
        self._rows: Rows[LiveJob] | None = None

    @property
    def jobs(self) -> list[LiveJob]:
        """All of its answers, those that came first in front."""
        return [*(self._rows.jobs if self._rows else ()), *self.waiting]

    def nbytes(self, more: LiveJob | None = None) -> int:
        """What its cache takes, or will take with one more answer, in bytes."""
        jobs = [*self.jobs, *([more] if more else [])]
        rows, length = self._size(jobs)
        return rows * length * self._forward.kv_bytes

    def advance(self, put_back: Callable[[Sequence[LiveJob]], None]) -> bool:
        """Write one more token of every answer; those that end leave.

        Args:
            put_back: see `shrink`.

        Returns:
            Whether memory sufficed.
        """
        enough = True
        self._drop_cancelled()
        try:
            for job in [job for job in self.waiting if job.echoes]:
                if not tell_prompt(self._forward, job, self._where):
                    self.waiting.remove(job)
            while self.waiting:
                self._read()
            if self._rows and self._rows.jobs:
                self._fit()
                self._settle(self._rows.step(), 0)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            enough = False
            self.shrink(put_back)
        if not self.jobs:
            self._rows = None
        return enough

    def shrink(self, put_back: Callable[[Sequence[LiveJob]], None]) -> None:
        """Read the first half again, into fewer slots; one alone fails for want of memory.

        Args:
            put_back: is given the others. They go on from where they are when there is room.
        """
        jobs = self.leave()
        if len(jobs) == 1:
            error = MachineError(
                f"there is not enough memory for one more token behind {jobs[0].read}",
                self._where,
                fix="ask for less, or with fewer others at once",
            )
            jobs[0].end("failed", error)
            return
        half = len(jobs) // 2
        self.waiting.extend(jobs[:half])
        put_back(jobs[half:])

    def fail(self, error: Exception) -> None:
        """End all of its answers for one reason."""
        jobs, self._rows = self.jobs, None
        self.waiting.clear()
        for job in jobs:
            job.end("failed", error)

    def leave(self) -> list[LiveJob]:
        """Give up the slots; return the answers that were in them or waiting."""
        jobs, self._rows = self.jobs, None
        self.waiting.clear()
        return jobs

    def _read(self) -> None:
        """Read waiting prompts, as many as fit one batch, and choose their first tokens."""
        lengths = [job.read for job in self.waiting]
        places = batches(lengths, lengths, tokens=self._token_budget, weight=sum(lengths))[0]
        new = [self.waiting[place] for place in places]
        if self._rows is None:
            rows, length = self._size(self.jobs)
            self._rows = Rows(self._forward, SlotCache(self._forward.layers, rows, length))
        # Each job is in one place at any moment: reading may fail.
        for job in new:
            self.waiting.remove(job)
        self._rows.jobs.extend(new)
        self._fit()
        first = len(self._rows.jobs) - len(new)
        self._settle(self._rows.read(new), first)

    def _fit(self) -> None:
        """Make room for one more token of every answer."""
        assert self._rows is not None  # noqa: S101 - there are answers
        slots, jobs = self._rows.slots, self._rows.jobs
        if len(jobs) > slots.rows or max(job.read for job in jobs) > slots.length:
            slots.grow(*self._size(self.jobs))

    def _size(self, jobs: Sequence[LiveJob]) -> tuple[int, int]:
        """Rows, in powers of two so that they seldom grow, and the longest answer's room."""
        if not jobs:
            return 0, 0
        slots = self._rows.slots if self._rows else None
        rows = max(len(jobs), min(1 << (len(jobs) - 1).bit_length(), MAX_ROWS))
        length = max(job.room for job in jobs)
        return max(rows, slots.rows if slots else 0), max(length, slots.length if slots else 0)

    def _settle(self, logits: torch.Tensor, first: int) -> None:
        """Give each row from `first` on its token; those that end or fail leave."""
        assert self._rows is not None  # noqa: S101 - it has just been computed
        jobs = self._rows.jobs[first:]
        done: set[int] = set()
        for place, (job, token) in enumerate(zip(jobs, choose(logits, jobs), strict=True), first):
            if token is None:
                layer = self._forward.broken_layer([*job.prompt, *job.answer])
                done.add(place)
                self._rows.slots.wipe(place)
                job.end("failed", NotFiniteError(0, layer, self._where))
            elif job.take(token):
                done.add(place)
        self._rows.leave(done)

    def _drop_cancelled(self) -> None:
        for job in [job for job in self.waiting if job.stream.cancelled]:
            self.waiting.remove(job)
            job.end("cancelled")
        if self._rows is None:
            return
        gone = {n for n, job in enumerate(self._rows.jobs) if job.stream.cancelled}
        for place in gone:
            self._rows.jobs[place].end("cancelled")
        self._rows.leave(gone)
