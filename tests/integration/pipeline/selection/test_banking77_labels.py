"""Labels that are wrong, in banking77: what decision 25 says of nano, measured again."""

from __future__ import annotations

import csv
import random
from typing import TYPE_CHECKING

import pytest

from evals.engine.embed import Passage, embed
from pipeline.selection.judge.mislabelled import doubted_labels

if TYPE_CHECKING:
    from pathlib import Path

    from registry.models.load import LoadedModel

pytestmark = pytest.mark.soak


def test_of_flipped_labels_a_fifth_is_found_and_few_right_ones(
    nano: LoadedModel, real_data: Path
) -> None:
    """A real base finds three quarters; what nano makes of a question tells intents apart badly."""
    with (real_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    rng = random.Random(1)
    intents = rng.sample(sorted({label for _, label in rows}), 6)
    of = {one: [row for row in rows if row[1] == one] for one in intents}
    mine = [row for there in of.values() for row in rng.sample(there, min(60, len(there)))]
    labels = [label for _, label in mine]
    flipped = set(rng.sample(range(len(mine)), len(mine) // 10))
    for place in flipped:
        labels[place] = rng.choice([one for one in intents if one != labels[place]])
    read = embed(nano, [Passage(pair[0], label) for pair, label in zip(mine, labels, strict=True)])
    doubted = {doubt.position for doubt in doubted_labels(read.asked, labels)}
    assert len(doubted & flipped) >= 0.2 * len(flipped)
    assert len(doubted & flipped) >= 0.5 * len(doubted)
