"""Near-duplicates of real Chinese texts are found as often as those of English ones as long."""

from __future__ import annotations

import csv
import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.datasets.duplicates.near_duplicates import THRESHOLD, jaccard, near_pairs, shingles
from registry.datasets.duplicates.tokens import tokens_of

HAN_A_WORD = 4 / 3  # characters of Chinese that are a word of English
TRIES = 300


def is_han(letter: str) -> bool:
    return "\u4e00" <= letter <= "\u9fff"


@pytest.fixture(scope="module")
def chinese(real_data: Path) -> list[str]:
    rows = json.loads((real_data / "llamafactory/identity.json").read_text("utf-8"))
    said = [text for row in rows for text in (row["instruction"], row["output"])]
    return list(dict.fromkeys(text for text in said if any(map(is_han, text))))


@pytest.fixture(scope="module")
def english(real_data: Path) -> list[str]:
    with (real_data / "banking77/test.csv").open(encoding="utf-8") as file:
        said = [row["text"] for row in csv.DictReader(file)]
    lines = (real_data / "gsm8k/test.jsonl").read_text("utf-8").splitlines()
    return said + [json.loads(line)["question"] for line in lines]


def near_after(texts: list[str], change: Callable[[str], str]) -> tuple[float, float]:
    """Return the share of texts that stay near after a change, and the mean similarity."""
    tries = (texts * (1 + TRIES // len(texts)))[:TRIES]
    found = [jaccard(shingles(text), shingles(change(text))) for text in tries]
    return statistics.mean(one >= THRESHOLD for one in found), statistics.mean(found)


@pytest.mark.parametrize("length", [(20, 35), (35, 50), (50, 70)])
def test_one_thing_changed_leaves_as_much(chinese, english, length: tuple[int, int]) -> None:
    rng = random.Random(1)
    characters = sorted({one for text in chinese for one in text if is_han(one)})
    words = sorted({word for text in english for word in text.split()})

    def one_character(text: str) -> str:
        at = rng.choice([place for place, one in enumerate(text) if is_han(one)])
        return text[:at] + rng.choice(characters) + text[at + 1 :]

    def one_word(text: str) -> str:
        said = text.split()
        said[rng.randrange(len(said))] = rng.choice(words)
        return " ".join(said)

    least, most = length
    ours = [t for t in chinese if least * HAN_A_WORD <= len(t) < most * HAN_A_WORD]
    theirs = [t for t in english if least <= len(tokens_of(t)) < most]
    near, similar = near_after(ours, one_character)
    near_english, similar_english = near_after(theirs, one_word)
    assert abs(near - near_english) < 0.1  # by words, .05 for .24, .13 for .94, .17 for 1.0
    assert abs(similar - similar_english) < 0.03


def test_different_texts_are_not_near(chinese: list[str]) -> None:
    """148 short ones on one subject; those that are near differ by their first clause."""
    pairs = {(p.left, p.right) for p in near_pairs(chinese, chinese) if p.left < p.right}
    assert len(pairs) <= 2
    assert all(chinese[left][4:] in chinese[right] for left, right in pairs)
