"""A loaded model that answers many at once, each with its adapter, token by token.

Heavy at import (torch, transformers). One thread owns the model. Answers of one adapter are a
group and grow together in slots, as continuous batching has it (Orca, Yu et al. 2022): between two
steps some end and others join. Groups take turns, the adapter is switched between them, and a turn
lasts so long that switching takes little of the time. Any kind of adapter can be switched, where
PEFT's mixed batches take plain LoRA only.
"""

from __future__ import annotations

import time
from collections import deque
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING

from evals.engine.forward import Forward
from evals.engine.generate import MAX_ROWS
from evals.engine.live.alone import answer_alone
from evals.engine.live.ask import Stream
from evals.engine.live.echo import tell_prompt
from evals.engine.live.group import Group
from evals.engine.live.job import LiveJob
from evals.engine.live.text import AnswerText
from evals.engine.packed import CPU_KV, CPU_TOKENS, GPU_KV, GPU_TOKENS
from registry.errors import DataError, StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evals.engine.live.ask import Ask, Told
    from registry.models.load import LoadedModel

# A turn is so many times as long as the switch before it, and never longer than this.
_TURN, _LONGEST_S = 5, 0.25
# What libraries do while an adapter is read isn't made for several threads.
_READING = Lock()


class Live:
    """Answers asks with one loaded model until it is closed.

    Args:
        loaded: the model; nobody else may use it meanwhile.

    Attributes:
        loaded: the model. Its tokenizer and chat may be read by one other thread at a time.
        together: whether answers grow together; if not, they are written one after the other.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        """Try the model out, and start."""
        self.loaded = loaded
        self._where = f"bases.{loaded.identity.name}"
        self._forward = Forward(loaded)
        self.together = self._forward.packs
        gpu = loaded.device.type != "cpu"
        self._token_budget, self._kv = (GPU_TOKENS, GPU_KV) if gpu else (CPU_TOKENS, CPU_KV)
        self._most = MAX_ROWS if self.together else 1
        self._specials = {
            str(loaded.tokenizer.convert_ids_to_tokens(n)): n for n in loaded.chat.specials
        }
        self._ends = loaded.chat.stops
        self._new = Condition()
        self._asked: deque[LiveJob] = deque()  # by others, under the lock of `_new`
        self._waiting: deque[LiveJob] = deque()  # for room, in the order that they came in
        self._groups: dict[tuple[Path | None, float], Group] = {}
        self._on: tuple[Path | None, float] | None = None
        self._closed = False
        self._thread = Thread(target=self._work, name="gapmend-live", daemon=True)
        self._thread.start()

    def submit(self, ask: Ask, told: Told | None = None) -> Stream:
        """Ask; the answer comes piece by piece.

        Args:
            ask: a prompt, and how to answer it.
            told: is called with each piece and the end, see `Stream`.

        Raises:
            UserError: a value out of its range, a prompt that leaves no room for an answer or has
                tokens that the base doesn't know, or it is closed.
        """
        ask.check()
        room = self.loaded.context - len(ask.prompt)
        if room < 1:
            raise DataError(
                f"the prompt has {len(ask.prompt)} tokens",
                expected=f"fewer than {self.loaded.context}, which {self.loaded.identity.name} "
                "reads, the answer included",
            )
        if max(ask.prompt) >= self._forward.vocabulary:
            self._forward.refuse_unknown(max(ask.prompt))
        job = self._job(Stream(ask, told), room)
        with self._new:
            if self._closed:
                raise StoreRequestError("the model has been closed", self._where)
            self._asked.append(job)
            self._new.notify()
        return job.stream

    def close(self) -> None:
        """End all answers, as cancelled, and the thread; returns when it has ended."""
        with self._new:
            self._closed = True
            self._new.notify()
        self._thread.join()

    def _job(self, stream: Stream, room: int) -> LiveJob:
        ask = stream.ask
        # No text shows a special token: the answer ends at the token itself.
        ends = self._ends | {self._specials[stop] for stop in ask.stops if stop in self._specials}
        stops = [stop for stop in ask.stops if stop not in self._specials]
        text = AnswerText(self.loaded.tokenizer, stops, plain=ask.plain)
        return LiveJob(stream, text, frozenset(ends), min(ask.limit or room, room))

    def _work(self) -> None:
        fault: Exception | None = None
        try:
            while self._take_in(idle=not (self._groups or self._waiting)):
                self._admit()
                for key in list(self._groups):
                    self._turn(self._groups[key])
                    if not self._groups[key].jobs:
                        del self._groups[key]
        except Exception as error:
            fault = error
            raise
        finally:
            self._end_all(fault)
            self.loaded.use(None)

    def _take_in(self, *, idle: bool = False) -> bool:
        """Take what was asked meanwhile, and wait for it where there is nothing to do."""
        with self._new:
            if idle:
                self._new.wait_for(lambda: self._asked or self._closed)
            self._waiting.extend(self._asked)
            self._asked.clear()
            return not self._closed

    def _admit(self) -> None:
        """Give those that wait a place in their groups while there is room, first come first."""
        while self._waiting:
            job = self._waiting[0]
            if not job.stream.cancelled and not self._fits(job):
                return
            self._waiting.popleft()
            if job.stream.cancelled:
                job.end("cancelled")
                continue
            if job.key not in self._groups:
                self._groups[job.key] = Group(
                    self._forward, job.key, self._token_budget, self._where
                )
            self._groups[job.key].waiting.append(job)

    def _fits(self, job: LiveJob) -> bool:
        count = sum(len(group.jobs) for group in self._groups.values())
        if not count:
            return True
        return count < self._most and self._nbytes(job) <= self._kv

    def _nbytes(self, more: LiveJob | None = None) -> int:
        """What all caches take, with one more answer where one is given."""
        groups = self._groups.items()
        alone = more is not None and more.key not in self._groups
        own = more.room * self._forward.kv_bytes if more is not None and alone else 0
        return own + sum(
            group.nbytes(more if more is not None and more.key == key else None)
            for key, group in groups
        )

    def _turn(self, group: Group) -> None:
        """Let a group write for a while."""
        begun = time.monotonic()
        try:
            self._switch(group.key)
            now = time.monotonic()
            until = now + min(_TURN * (now - begun), _LONGEST_S)
            while group.jobs and not self._closed:
                self._advance(group)
                self._take_in()
                self._admit()
                if len(self._groups) > 1 and time.monotonic() >= until:
                    return
        except Exception as error:  # noqa: BLE001 - whatever this adapter does, others go on
            group.fail(error)

    def _advance(self, group: Group) -> None:
        if not self.together:
            self._alone(group.waiting.popleft())
            return
        if len(group.jobs) > 1 and self._nbytes() > self._kv:
            group.shrink(self._put_back)
        if not group.advance(self._put_back):
            self._kv = max(1, min(self._kv, self._nbytes()) // 2)

    def _alone(self, job: LiveJob) -> None:
        try:
            if job.echoes and not tell_prompt(self._forward, job, self._where):
                return
            answer_alone(self.loaded.model, self._forward, job, self._where, lambda: self._closed)
        except Exception as error:  # noqa: BLE001 - any architecture may fail in its own way
            if job.stream.finish is None:
                job.end("failed", error)

    def _put_back(self, jobs: Sequence[LiveJob]) -> None:
        self._waiting.extendleft(reversed(jobs))

    def _switch(self, key: tuple[Path | None, float]) -> None:
        if key == self._on:
            return
        self._on = None
        adapter, scale = key
        with _READING:
            if adapter is None:
                self.loaded.lay_aside()
            else:
                self.loaded.use(adapter, scale)
        self._on = key

    def _end_all(self, fault: Exception | None) -> None:
        with self._new:
            self._closed = True
            left = [*self._waiting, *self._asked]
            self._waiting.clear()
            self._asked.clear()
        for group in self._groups.values():
            left += group.leave()
        for job in left:
            job.end("failed" if fault else "cancelled", fault)
