"""What the measurements of scoring share: the figures, the rows and the requests made of them."""

from __future__ import annotations

import json
import random
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance

HERE = Path(__file__).parent
DATA = HERE.parent / "examples" / "quickstart" / "data"
SHOTS = 5
NEW_TOKENS = 64
HEAD = f"{'case':<26}{'unit':<7}{'ours':>9}{'lm-eval':>9}{'batch':>7}{'ratio':>8}{'target':>8}"


@dataclass(frozen=True)
class Figure:
    """One case: ours, lm-eval's where there is one, and what must be reached.

    `ratio` is lm-eval's over ours and at least `target`; without it, ours is at most `target`.
    """

    case: str
    unit: str
    ours: float
    peer: float | None
    batch_size: int | None
    ratio: float | None
    target: float
    holds: bool
    note: str = ""

    @classmethod
    def beside(
        cls,
        case: str,
        unit: str,
        sides: tuple[float, float],
        batch_size: int,
        target: float,
        note: str = "",
    ) -> Figure:
        """Return the figure of a case that has both sides: ours, lm-eval's."""
        ours, peer = sides
        ratio = peer / ours
        return cls(case, unit, ours, peer, batch_size, ratio, target, ratio >= target, note)

    @classmethod
    def at_most(cls, case: str, unit: str, ours: float, target: float, note: str = "") -> Figure:
        """Return the figure of a case that is ours alone, and has an upper limit."""
        return cls(case, unit, ours, None, None, None, target, ours <= target, note)

    def line(self) -> str:
        """Return it as a line of the table, with its note below."""
        places = 3 if self.ours < 1 else 2 if self.ours < 1000 else 0  # noqa: PLR2004
        peer = "-" if self.peer is None else f"{self.peer:.{places}f}"
        batch = "-" if self.batch_size is None else str(self.batch_size)
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        note = f"\n  {self.note}" if self.note else ""
        return (
            f"{self.case:<26}{self.unit:<7}{self.ours:>9.{places}f}{peer:>9}{batch:>7}{ratio:>8}"
            f"{self.target:>8g}  {'holds' if self.holds else 'missed'}{note}"
        )


@dataclass(frozen=True)
class Case:
    """One kind of work: its requests, how they are asked, and the key of its target."""

    name: str
    kind: str
    requests: list[Instance]


def targets() -> dict[str, float]:
    """Return what must be reached, by name."""
    read: dict[str, float] = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["evals"]
    return read


def read(name: str, split: str) -> list[dict[str, str]]:
    """Return rows of the quickstart."""
    lines = (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def prompt(row: dict[str, str], shots: Sequence[dict[str, str]]) -> str:
    """Return a question behind solved ones, in nano's template."""
    turns = [f"<|user|>{s['input']}<|end|><|assistant|>{s['output']}<|end|>" for s in shots]
    return "".join(turns) + f"<|user|>{row['input']}<|end|><|assistant|>"


def cases(items: int) -> dict[str, Case]:
    """Return the work: choices without examples, with shared and with own ones, and writing."""
    from lm_eval.api.instance import Instance

    rng = random.Random(0)
    asked, pool = read("intent", "dev")[:items], read("intent", "train")
    labels = sorted({row["output"] for row in pool})
    words = ["yes", "no", "red", "day"]
    shared = pool[:SHOTS]

    def choices(shots: Callable[[], Sequence[dict[str, str]]], answers: Any) -> list[Instance]:
        made = []
        for row in asked:
            context, given = prompt(row, shots()), answers()
            made += [
                Instance("loglikelihood", {}, (context, answer), i, ("bench", 0, 1))
                for i, answer in enumerate(given)
            ]
        return made

    def four() -> list[str]:
        return [f"{label}<|end|>" for label in rng.sample(labels, 4)]

    stop = {"until": ["<|end|>"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
    written = [
        Instance("generate_until", {}, (f"<|user|>Repeat: {text}<|end|><|assistant|>", stop), 0)
        for row in asked
        for text in [" ".join(row["input"].split()[: rng.randint(1, 12)])]
    ]
    made = [
        Case("choice_0_shot", "loglikelihood", choices(list, four)),
        Case("choice_5_shot_shared", "loglikelihood", choices(lambda: shared, four)),
        Case("choice_5_shot_own", "loglikelihood", choices(lambda: rng.sample(pool, SHOTS), four)),
        Case("one_token_5_shot", "loglikelihood", choices(lambda: shared, lambda: words)),
        Case("generation", "generate_until", written),
    ]
    return {case.name: case for case in made}
