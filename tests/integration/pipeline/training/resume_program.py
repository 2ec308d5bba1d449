"""A training in a process of its own, to be killed: BASE WORKDIR."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pipeline.spec.train import TrainSpec
from pipeline.training.fit import TrainingRow, fit
from registry.models.load import BaseSpec, load_model

SPEC = TrainSpec(
    base="tiny",
    rank=4,
    learning_rate=5e-3,
    epochs=2.5,
    batch_tokens=96,
    batch_rows=3,
    min_steps=1,
    dropout=0.1,
    weight_decay=0.1,
    schedule="linear",
    checkpoint_steps=3,
    seed=11,
)
_WORDS = ["the", "film", "was", "good", "dull", "but", "warm", "as", "a", "card", "lazy", "dog"]


def rows() -> list[TrainingRow]:
    """Forty conversations, the same in every process."""
    made = []
    for uid in range(40):
        asked = " ".join(_WORDS[(uid * 7 + at * 3) % len(_WORDS)] for at in range(4 + uid % 9))
        said = ("positive", "negative")[uid % 3 == 0]
        messages = ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
        made.append(TrainingRow(uid=uid, messages=messages, tools=None, capability="x"))
    return made


def train(base: Path, workdir: Path) -> int | None:
    """Train, however often that was begun before; return from which step it went on."""
    torch.set_num_threads(1)
    loaded = load_model("tiny", BaseSpec(model=str(base), dtype="fp32"), base)
    return fit(loaded, rows(), SPEC, workdir).resumed_from


if __name__ == "__main__":
    sys.stdout.write(f"resumed {train(Path(sys.argv[1]), Path(sys.argv[2]))}\n")
