"""Our side of the training benchmark: one process that trains in turns through `fit()`.

python benchmarks/_train_ours.py SETTINGS       as train.py starts it
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent / "train_peers"))

from _turns import rows, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.training.record.metrics import StepMetrics


def main() -> None:
    """Train until told to end."""
    turns, given = start()
    from _train_cases import training_rows

    from pipeline.spec.train import TrainSpec
    from pipeline.training.fit import fit
    from registry.models.base import BaseSpec
    from registry.models.load import load_model

    base = BaseSpec(model=given["folder"], dtype=given["dtype"])
    loaded = load_model("bench", base, Path.cwd())
    # The peers' batches are filled with tokens, too.
    filled = {"batch_rows": 10**6, "min_steps": 1}
    settings = {"rank": 16, "alpha": 32, "learning_rate": 2e-4, **filled, **given["trainer"]}
    spec = TrainSpec(base="bench", **settings)
    asked = rows(given)
    data: list[Any]
    each = 1.0  # trained tokens in what a step counts: tokens, or pairs
    if spec.objective == "dpo":
        data = pairs_of(asked)
        each = trained_in_a_pair(loaded, data)
    else:
        data = training_rows([(row["user"], row["assistant"]) for row in asked])

    def on_step(step: StepMetrics) -> None:
        turns.batch_done(step.tokens, round(step.trained_tokens * each))
        turns.between()

    turns.loaded()
    with tempfile.TemporaryDirectory() as folder:
        fit(loaded, data, spec, Path(folder), on_step=on_step)
    raise SystemExit("the rows were trained to their end before the last turn")


def pairs_of(asked: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the pairs as preference rows."""
    from pipeline.training.examples.pairs import PreferenceRow

    def said(role: str, text: str) -> tuple[dict[str, Any], ...]:
        return ({"role": role, "content": text},)

    return [
        PreferenceRow(
            uid,
            said("user", row["user"]),
            said("assistant", row["chosen"]),
            said("assistant", row["rejected"]),
            None,
            "bench",
        )
        for uid, row in enumerate(asked)
    ]


def trained_in_a_pair(loaded: Any, data: Sequence[Any]) -> float:
    """Return the mean number of trained tokens of a pair's two answers."""
    from pipeline.training.examples.pairs import encode_pairs

    pairs, _ = encode_pairs(loaded, data, allow_rejects=0)
    trained = [one.chosen.trained_tokens + one.rejected.trained_tokens for one in pairs]
    return sum(trained) / len(trained)


def mean_loss(folder: Path, batch: Sequence[dict[str, Any]]) -> float:
    """Return our loss of these rows, per trained token, on the untrained model in fp32."""
    import numpy as np
    import torch

    from pipeline.training.compute import packed
    from pipeline.training.examples.encode import EncodedRow
    from pipeline.training.losses.loss import pack_rows, packed_loss
    from registry.models.base import BaseSpec
    from registry.models.load import load_model

    loaded = load_model("bench", BaseSpec(model=str(folder), dtype="fp32"), Path.cwd())
    encoded = [
        EncodedRow(0, np.array(row["input_ids"], np.int32), np.array(row["labels"], np.int32))
        for row in sorted(batch, key=lambda row: -len(row["input_ids"]))
    ]
    with torch.no_grad(), packed(loaded.model):
        total = float(packed_loss(loaded.model, pack_rows(encoded)))
    return total / sum(row.trained_tokens for row in encoded)


if __name__ == "__main__":
    main()
