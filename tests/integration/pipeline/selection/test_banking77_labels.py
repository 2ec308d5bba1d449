"""Labels that are wrong, in banking77: what decision 25 says, measured again."""

from __future__ import annotations

import csv
import random
from typing import TYPE_CHECKING

from pipeline.selection.judge.mislabelled import doubted_labels
from pipeline.selection.judge.terms import Terms

if TYPE_CHECKING:
    from pathlib import Path


def test_most_flipped_labels_are_found_and_few_right_ones(real_data: Path) -> None:
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
    asked = [text for text, _ in mine]
    doubted = {doubt.position for doubt in doubted_labels(Terms.of(asked).vectors(asked), labels)}
    assert len(doubted & flipped) >= 0.8 * len(flipped)
    assert len(doubted & flipped) >= 0.8 * len(doubted)
