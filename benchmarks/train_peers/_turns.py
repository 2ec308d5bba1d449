"""How a side of the training benchmark takes its turns; runs in every peer's environment.

A side is one process: it loads, makes one step to warm up, and then trains whenever it is told to.
Commands come as lines on standard input (`turn TOKENS`, `end`), answers go as JSON lines to
standard output, which nothing else is written to. A turn is whole optimizer steps until at least
that many real tokens are done; while it waits, the process takes no CPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IGNORED = -100
KIB = 1024
MIB = 1024 * 1024


@dataclass
class Turns:
    """The process's position in the race.

    Attributes:
        answers: where answers go.
        pad: the token that is no real one.
        accumulation: batches a step.
    """

    answers: Any
    pad: int = -1
    accumulation: int = 1
    _batches: int = 0
    _tokens: int = 0
    _trained: int = 0
    _asked: int | None = None
    _began: tuple[float, float] = (0.0, 0.0)
    _before: int = 0
    _first_rows: list[list[int]] = field(default_factory=list)
    _first_loss: float = 0.0

    def loaded(self) -> None:
        """Remember what is resident before training, and let the high-water mark begin there."""
        try:
            Path("/proc/self/clear_refs").write_text("5", "ascii")
        except OSError:
            # The mark then includes loading, which is said in the answer.
            self._before = -1
            return
        self._before = _kib("VmRSS")

    def between(self) -> None:
        """Between two batches: if the turn is over, answer and wait for the next one."""
        if self._batches % self.accumulation:
            return
        if self._asked is not None and self._tokens < self._asked:
            return
        self._answer()
        command = sys.stdin.readline().split()
        if not command or command[0] == "end":
            self._end()
        self._asked, self._tokens, self._trained, self._batches = int(command[1]), 0, 0, 0
        self._began = (time.process_time(), time.perf_counter())

    def batch_done(self, tokens: int, trained: int) -> None:
        """Count a batch."""
        self._batches += 1
        self._tokens += tokens
        self._trained += trained

    def first_batch(self, rows: list[list[int]], loss: float) -> None:
        """Keep what the first step was made of: its losses add up over accumulation."""
        if self._asked is None:
            self._first_rows += rows
            self._first_loss += loss

    def _answer(self) -> None:
        if self._asked is None:
            self.tell(rows=self._first_rows, loss=self._first_loss)
            return
        cpu, wall = self._began
        self.tell(
            tokens=self._tokens,
            trained=self._trained,
            batches=self._batches,
            cpu=time.process_time() - cpu,
            wall=time.perf_counter() - wall,
        )

    def _end(self) -> None:
        grown = (_kib("VmHWM") - self._before) * KIB / MIB if self._before >= 0 else None
        self.tell(grown=grown, before=self._before * KIB / MIB)
        # Nothing that a Trainer does at its end is measured.
        os._exit(0)

    def tell(self, **answer: Any) -> None:
        """Write an answer."""
        self.answers.write(json.dumps(answer) + "\n")
        self.answers.flush()


def _kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"this system does not say its {name}")


def start() -> tuple[Turns, dict[str, Any]]:
    """Read the settings (JSON, the first argument), and keep standard output for answers alone."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(given["threads"])
    return Turns(answers, given["pad"], given.get("accumulation", 1)), given


def take_turns(turns: Turns) -> None:
    """Let every `transformers.Trainer` of this process, subclasses too, train in turns."""
    from transformers import Trainer

    plain = Trainer.training_step

    def training_step(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(trainer, "in_turns"):
            trainer.in_turns = True
            turns.loaded()
        else:
            turns.between()
        rows = rows_of(inputs, turns.pad)
        # Collected first: some trainers take things out of their inputs.
        trained = trained_tokens(inputs)
        loss = plain(trainer, model, inputs, *args, **kwargs)
        turns.first_batch(rows, float(loss))
        turns.batch_done(sum(len(row) for row in rows), trained)
        return loss

    Trainer.training_step = training_step


def trained_tokens(inputs: Any) -> int:
    """Return how many tokens of a batch have a loss."""
    if "labels" in inputs:
        return int((inputs["labels"] != IGNORED).sum())
    return int(inputs["completion_mask"].sum())


def rows_of(inputs: Any, pad: int) -> list[list[int]]:
    """Return the rows of a batch, however they are packed or padded."""
    positions = inputs.get("position_ids")
    found = []
    for number, line in enumerate(inputs["input_ids"].tolist()):
        begins = [0]
        if positions is not None:
            begins = [i for i, place in enumerate(positions[number].tolist()) if place == 0]
        for begin, end in zip(begins, [*begins[1:], len(line)], strict=True):
            row = [token for token in line[begin:end] if token != pad]
            if row:
                found.append(row)
    return found


def rows(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows: `user`, `assistant`, `input_ids`, `labels`."""
    found: list[dict[str, Any]] = json.loads(Path(given["rows"]).read_text("utf-8"))
    return found
