"""Greedy generation in slots: finished rows leave, waiting prompts take their place.

Heavy at import (torch). Prompts that share a prefix read it once; a row's KV cache stays in
its slot until it ends, and the rows in use are always the first ones, so that no step computes
for a row that has finished.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evals.engine.kv import SlotCache
from evals.engine.limits import out_of_memory
from evals.engine.rows import Rows
from evals.engine.tree import Segment, batches, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from evals.engine.forward import Forward
    from evals.engine.kv import Prefix

# More rows than this gain nothing, and take memory: a step's cost then grows with its rows.
MAX_ROWS = 80
# New prompts are read when this share of the slots is free: reading few at a time is slow.
REFILL_SHARE = 4


class NoFiniteLogitsError(Exception):
    """No token can be chosen for a job."""

    def __init__(self, job: Job) -> None:
        """Name the job."""
        self.job = job
        super().__init__("no finite logits")


class StopRule:
    """Where an answer ends: at an end token, or where its text holds a stop string.

    Args:
        tokenizer: decodes what was generated.
        strings: the stop strings; each may span tokens.
        ends: ids of tokens that end every answer.
        vocabulary: how many logits the model has.
        plain: leave special tokens out of the answer's text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        strings: Sequence[str],
        ends: frozenset[int],
        vocabulary: int,
        *,
        plain: bool = True,
    ) -> None:
        """See the class."""
        self.strings = tuple(s for s in strings if s)
        self.padding = min(ends)
        self._tokenizer = tokenizer
        self._ends = ends
        self._plain = plain
        self._completes = self._completing(vocabulary)

    def after(self, tokens: Sequence[int]) -> bool:
        """Whether the answer ends with the last of these tokens."""
        if tokens[-1] in self._ends:
            return True
        if not self._completes[tokens[-1]]:
            return False
        text = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return any(string in text for string in self.strings)

    def text(self, tokens: Sequence[int]) -> str:
        """The answer's text, up to the first stop string."""
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=self._plain))
        for string in self.strings:
            text = text.split(string, maxsplit=1)[0]
        return text

    def _completing(self, vocabulary: int) -> NDArray[np.bool_]:
        """Which tokens may complete a stop string: only after these the text is decoded.

        A stop string is complete when its last character is. A token that decodes to nothing or to
        a part of a character by itself may be anything.
        """
        lasts = {string[-1] for string in self.strings}
        wide = any(not last.isascii() for last in lasts)
        known = min(len(self._tokenizer), vocabulary)
        pieces = self._tokenizer.batch_decode(
            [[token] for token in range(known)], skip_special_tokens=False
        )
        completes = np.ones(vocabulary, dtype=np.bool_)
        for token, piece in enumerate(pieces):
            part = "\ufffd" in piece and wide
            completes[token] = not piece or part or any(last in piece for last in lasts)
        return completes


@dataclass(eq=False)
class Job:
    """A prompt and the tokens of its answer so far."""

    prompt: list[int]
    limit: int
    stops: StopRule
    answer: list[int] = field(default_factory=list)

    def take(self, token: int) -> bool:
        """Append a token; whether the answer is complete."""
        self.answer.append(token)
        return len(self.answer) >= self.limit or self.stops.after(self.answer)


class Generator:
    """Runs jobs to their end.

    Args:
        forward: the model.
        token_budget: padded tokens of prompts read at once.
        kv_bytes: memory for the KV cache.
        on_done: called with each finished job.
    """

    def __init__(
        self, forward: Forward, token_budget: int, kv_bytes: int, on_done: Callable[[Job], None]
    ) -> None:
        """See the class."""
        self._forward = forward
        self._token_budget = token_budget
        self._kv_bytes = kv_bytes
        self._on_done = on_done

    def run(self, jobs: Sequence[Job]) -> None:
        """Fill in every job's answer."""
        prompts = [job.prompt for job in jobs]
        shared = segments(prompts) if self._forward.shares else (_all(prompts),)
        for segment in shared:
            prefix = None
            if segment.prefix:
                prefix = self._forward.prefix(prompts[segment.rows[0]][: segment.prefix])
            chosen = [jobs[row] for row in segment.rows]
            chosen.sort(key=lambda job: -len(job.prompt))
            self._segment(chosen, prefix)

    def _segment(self, jobs: Sequence[Job], prefix: Prefix | None) -> None:
        own = max(len(job.prompt) + job.limit for job in jobs) - (prefix.tokens if prefix else 0)
        rows = max(1, min(MAX_ROWS, len(jobs), self._kv_bytes // (own * self._forward.kv_bytes)))
        waiting = deque(jobs)
        while waiting:
            run = _Run(self._forward, SlotCache(self._forward.layers, rows, own), prefix)
            try:
                self._drain(run, waiting)
            except (RuntimeError, MemoryError) as error:
                if rows == 1 or not out_of_memory(error):
                    raise
                rows //= 2
                self._token_budget = max(1, self._token_budget // 2)
                again = [*run.jobs, *run.chosen]
                for job in again:
                    job.answer.clear()
                waiting.extendleft(reversed(again))

    def _drain(self, run: _Run, waiting: deque[Job]) -> None:
        while waiting or run.jobs:
            free = run.slots.rows - len(run.jobs)
            if waiting and (not run.jobs or free * REFILL_SHARE >= run.slots.rows):
                run.chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                self._refill(run)
            else:
                self._settle(run, _best(run.step(), run.jobs), 0)

    def _refill(self, run: _Run) -> None:
        """Read the chosen prompts, in batches of the token budget."""
        chosen = run.chosen
        lengths = [len(job.prompt) - run.start for job in chosen]
        for batch in batches(lengths, lengths, tokens=self._token_budget, weight=sum(lengths)):
            new = [chosen[row] for row in batch]
            # Each job is in one list at any moment: reading may fail, and then all go back.
            run.chosen = [job for job in run.chosen if job not in new]
            run.jobs.extend(new)
            self._settle(run, _best(run.read(new), new), len(run.jobs) - len(new))

    def _settle(self, run: _Run, tokens: list[int], first: int) -> None:
        """Give each row from `first` on its token; rows that finish leave, and the last move up."""
        done = {
            first + place
            for place, token in enumerate(tokens)
            if run.jobs[first + place].take(token)
        }
        for place in done:
            self._on_done(run.jobs[place])
        run.leave(done)


@dataclass(eq=False)
class _Run(Rows[Job]):
    """Jobs in slots, and those that are about to be read."""

    chosen: list[Job] = field(default_factory=list)


def one_by_one(model: Any, jobs: Sequence[Job], rows: int, on_done: Callable[[Job], None]) -> None:
    """Generate with transformers' own loop, prompts of equal length together: no padding at all.

    For models whose layers keep a running state, which neither padding nor slots may touch.
    """
    by_length: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        by_length.setdefault((len(job.prompt), job.limit), []).append(job)
    for (_, limit), alike in by_length.items():
        for start in range(0, len(alike), rows):
            chosen = alike[start : start + rows]
            _generate(model, chosen, limit)
            for job in chosen:
                on_done(job)


def _generate(model: Any, jobs: Sequence[Job], limit: int) -> None:
    ids = torch.tensor([job.prompt for job in jobs], device=model.device)

    def ended(tokens: torch.Tensor, _scores: Any, **_kwargs: Any) -> torch.Tensor:
        answers = tokens[:, ids.shape[1] :].tolist()
        done = [job.stops.after(answer) for job, answer in zip(jobs, answers, strict=True)]
        return torch.tensor(done, device=tokens.device)

    def checked(_tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        _best(scores, jobs)
        return scores

    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            logits_processor=[checked],
            stopping_criteria=[ended],
            pad_token_id=jobs[0].stops.padding,
        )
    for job, answer in zip(jobs, made[:, ids.shape[1] :].tolist(), strict=True):
        for token in answer:
            if job.take(token):
                break


def _best(logits: torch.Tensor, jobs: Sequence[Job]) -> list[int]:
    # One pass gives both: a maximum that isn't finite means that there is none.
    highest, tokens = logits.max(-1)
    for place in torch.nonzero(~torch.isfinite(highest)).flatten().tolist():
        raise NoFiniteLogitsError(jobs[place])
    return [int(token) for token in tokens.tolist()]


def _all(prompts: Sequence[Sequence[int]]) -> Segment:
    return Segment(0, tuple(range(len(prompts))))
