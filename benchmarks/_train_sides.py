"""The sides of the training benchmark as processes that train in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _train_cases import Case

HERE = Path(__file__).parent
PEERS = HERE / "train_peers"
EPOCHS = 100


@dataclass(frozen=True)
class Side:
    """Who trains, and how.

    Attributes:
        name: unique in its group.
        python: of its environment.
        script: what that runs.
        dtype: of the model; None as it comes.
        trainer: settings of its trainer.
        accumulation: batches a step.
        rows: other rows than the case's.
    """

    name: str
    python: Path
    script: Path
    dtype: str | None
    trainer: Mapping[str, Any]
    accumulation: int = 1
    rows: Path | None = None


@dataclass
class Turn:
    """What one turn did: real tokens, trained ones, CPU and wall-clock seconds."""

    tokens: int
    trained: int
    batches: int
    cpu: float
    wall: float


@dataclass
class Outcome:
    """All that a side has told.

    Attributes:
        turns: measured turns.
        rows: token ids of the rows of the first step.
        loss: of the first step.
        grown: MiB from what was resident after loading to the peak; None if unknown.
    """

    turns: list[Turn] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    loss: float = float("nan")
    grown: float | None = None

    @property
    def rate(self) -> float:
        """Real tokens per CPU second, the median turn's."""
        return statistics.median(turn.tokens / turn.cpu for turn in self.turns)

    @property
    def trained_rate(self) -> float:
        """Trained tokens per CPU second, the median turn's."""
        return statistics.median(turn.trained / turn.cpu for turn in self.turns)


class SideError(RuntimeError):
    """A side's process ended before it was told to."""


@dataclass
class Racer:
    """A side's process."""

    side: Side
    process: subprocess.Popen[str]
    log: Path
    outcome: Outcome = field(default_factory=Outcome)

    def read(self) -> dict[str, Any]:
        """Return its next answer.

        Raises:
            SideError: it has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            tail = self.log.read_text("utf-8", errors="replace").strip().splitlines()[-8:]
            raise SideError(f"{self.side.name} ended early:\n  " + "\n  ".join(tail))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def warm_up(self) -> None:
        """Wait for its first step."""
        first = self.read()
        self.outcome.rows, self.outcome.loss = first["rows"], first["loss"]

    def turn(self, tokens: int) -> None:
        """Let it train so many tokens."""
        self.outcome.turns.append(Turn(**self.ask(f"turn {tokens}")))

    def end(self) -> None:
        """Let it end."""
        self.outcome.grown = self.ask("end")["grown"]


def race(
    sides: Sequence[Side], case: Case, *, threads: int, repeats: int, tokens: int, logs: Path
) -> dict[str, Outcome]:
    """Let the sides train in turns on one case.

    A side that can't run is said and left out; all are in memory at once, and one is at work.
    """
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as stack:
        # Loading isn't measured, so they load at the same time.
        waiting = [stack.enter_context(started(side, case, threads, logs)) for side in sides]
        racers = [racer for racer in waiting if warmed_up(racer)]
        for _ in range(repeats):
            for racer in racers:
                racer.turn(tokens)
        for racer in racers:
            racer.end()
            outcomes[racer.side.name] = racer.outcome
    return outcomes


def warmed_up(racer: Racer) -> bool:
    """Whether a side is ready; one that isn't is said."""
    try:
        racer.warm_up()
    except SideError as error:
        print(f"not measured: {error}", flush=True)
        return False
    return True


@contextmanager
def started(side: Side, case: Case, threads: int, logs: Path) -> Iterator[Racer]:
    """Start a side's process; it is gone afterwards."""
    given = {
        "folder": str(case.folder),
        "rows": str(side.rows or case.rows),
        "pad": case.pad,
        "threads": threads,
        "dtype": side.dtype,
        "accumulation": side.accumulation,
        "trainer": dict(side.trainer),
    }
    log = logs / f"{case.folder.name}-{side.name.replace(' ', '-').replace('/', '-')}.log"
    # The project is found by our own side; a peer's environment must not see it.
    ours = side.python == Path(sys.executable)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **({"PYTHONPATH": str(HERE.parent)} if ours else {}),
    }
    # A program's high-water mark begins at that of the process it replaces: through a shell that
    # stays it is the shell's.
    command = ["sh", "-c", '"$0" "$@"; exit $?', str(side.python), str(side.script)]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        try:
            yield Racer(side, process, log)
        finally:
            # Its input ends, which ends it after its batch; a shell's child isn't killed with it.
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()


def ours(
    dtype: str, *, batch_tokens: int, accumulation: int, name: str = "", objective: str = "sft"
) -> Side:
    """Return our side; the model in this dtype, the adapter's weights in fp32."""
    return Side(
        name or f"ours {dtype}",
        Path(sys.executable),
        HERE / "_train_ours.py",
        dtype,
        # No checkpoint either, as with the peers.
        {
            "batch_tokens": batch_tokens,
            "accumulation": accumulation,
            "epochs": EPOCHS,
            "checkpoint_steps": 10**6,
            "objective": objective,
        },
    )
