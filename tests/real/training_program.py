"""A short training of SmolLM2, in a process of its own to be killed: ROOT WORKDIR."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.spec.train import TrainSpec
from pipeline.training.fit import FitResult, TrainingRow, fit
from registry.models.base import BaseSpec

if TYPE_CHECKING:
    from registry.models.load import LoadedModel

SPEC = TrainSpec(
    base="smol", rank=4, learning_rate=1e-3, epochs=1, batch_tokens=96, checkpoint_steps=2, seed=3
)
_ANSWERS = ("card_arrival", "exchange_rate", "lost_or_stolen_card")
_QUESTIONS = ("Where is my card number {}?", "Which rate do I get for {} euro?", "I lost card {}.")


def rows(count: int = 12) -> list[TrainingRow]:
    """Short conversations, the same in every process."""
    return [
        TrainingRow(
            uid=number,
            messages=(
                {"role": "user", "content": _QUESTIONS[number % 3].format(number)},
                {"role": "assistant", "content": _ANSWERS[number % 3]},
            ),
            tools=None,
            capability="intent",
        )
        for number in range(count)
    ]


def train(loaded: LoadedModel, workdir: Path) -> FitResult:
    """Train, however often that was begun before."""
    return fit(loaded, rows(), SPEC, workdir)


if __name__ == "__main__":
    from registry.models.load import load_model

    root, workdir = Path(sys.argv[1]), Path(sys.argv[2])
    smol = load_model("smol", BaseSpec(model="smollm2", dtype="fp32"), root)
    sys.stdout.write(f"resumed {train(smol, workdir).resumed_from}\n")
