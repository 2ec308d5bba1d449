"""Near-duplicates: what the bands propose and exact similarity decides is what all pairs give."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.duplicates import near_duplicates as duplicates
from registry.datasets.duplicates.bands import band_keys
from registry.datasets.duplicates.near_duplicates import (
    THRESHOLD,
    clusters,
    jaccard,
    join,
    near_pairs,
    shingles,
    sketch,
)

_WORDS = [
    "the",
    "card",
    "was",
    "late",
    "and",
    "my",
    "new",
    "film",
    "is",
    "not",
    "a",
    "good",
    "one",
    "but",
    "warm",
    "as",
    "it",
    "can",
    "be",
    "today",
]


def texts(count: int, seed: int) -> list[str]:
    """Texts of which many are another one with a word more, less or changed."""
    rng = random.Random(seed)
    made: list[str] = []
    for _ in range(count):
        words = rng.choices(_WORDS, k=rng.randint(1, 40))
        if made and rng.random() < 0.6:
            words = rng.choice(made).split()
            at = rng.randrange(len(words))
            words[at : at + rng.randint(0, 1)] = rng.choices(_WORDS, k=rng.randint(0, 1))
        made.append(" ".join(words) or "empty")
    return made


def all_pairs(given_texts: list[str]) -> list[int]:
    """Return the clusters by comparing every text with every other one."""
    sets = [shingles(text) for text in given_texts]
    number = list(range(len(sets)))
    for left in range(len(sets)):
        for right in range(left):
            if jaccard(sets[left], sets[right]) >= THRESHOLD and number[left] != number[right]:
                low, high = sorted((number[left], number[right]))
                number = [low if one == high else one for one in number]
    return number


@pytest.mark.parametrize("seed", range(8))
def test_clusters_are_those_of_all_pairs(seed: int) -> None:
    made = texts(150, seed)
    found = clusters(made).tolist()
    assert found == all_pairs(made)
    assert len(set(found)) < 140  # some were near


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_all_pairs(seed: int) -> None:
    made = texts(160, seed)
    left, right = made[:60], made[60:]
    wanted = {
        (a, b)
        for a, one in enumerate(left)
        for b, other in enumerate(right)
        if jaccard(shingles(one), shingles(other)) >= THRESHOLD
    }
    pairs = near_pairs(left, right)
    assert {(pair.left, pair.right) for pair in pairs} == wanted
    assert wanted
    assert [(p.left, p.right) for p in pairs] == sorted((p.left, p.right) for p in pairs)


def test_many_of_one_text_are_one_cluster() -> None:
    made = [
        f"{i}" if i % 2 else "where is my card, I wait for it since Monday" for i in range(4000)
    ]
    found = clusters(made).tolist()
    assert set(found[::2]) == {0}
    assert len(set(found)) == 2001


def words(count: int) -> str:
    """As many words as that, no two alike: all but two of them begin a shingle."""
    return " ".join(f"w{number}" for number in range(count))


@pytest.mark.parametrize(
    ("longer", "shorter", "near"),
    [
        (7, 6, True),  # 4 of 5 shingles are in both: 0.8
        (16, 13, False),  # 11 of 14: 0.786
        (26, 21, False),  # 19 of 24: 0.792
        (102, 82, True),  # 80 of 100
        (102, 81, False),  # 79 of 100
    ],
)
def test_four_shingles_of_five_are_near_and_less_is_not(
    longer: int, shorter: int, near: bool
) -> None:
    one, other = words(longer), words(shorter)
    share = (shorter - 2) / (longer - 2)
    assert jaccard(shingles(one), shingles(other)) == share
    assert join(2, [[0, 1]], [one, other]).tolist() == ([0, 0] if near else [0, 1])
    # The bands propose the pair, so that it is the similarity that decides.
    assert list(duplicates._proposed(sketch([one]), sketch([other]))) == [(0, [0])]
    assert [pair.similarity for pair in near_pairs([one], [other])] == [share] * near


@given(st.lists(st.text(max_size=30), max_size=12))
def test_any_text_has_a_cluster_whose_first_it_is_or_is_near(given_texts: list[str]) -> None:
    assert clusters(given_texts).tolist() == all_pairs(given_texts)


def test_the_shingles_of_all_texts_are_never_in_memory_at_once(monkeypatch) -> None:
    seen: list[int] = []

    def counted(sets: list[list[str]]) -> Any:
        seen.append(len(sets))
        return band_keys(sets)

    monkeypatch.setattr(duplicates, "band_keys", counted)
    monkeypatch.setattr(duplicates, "_AT_ONCE", 10)
    made = texts(45, 3)
    pairs, found = near_pairs(made[:15], made[15:]), clusters(made).tolist()
    assert max(seen) == 10
    monkeypatch.undo()
    assert near_pairs(made[:15], made[15:]) == pairs
    assert clusters(made).tolist() == found


def test_nothing_is_near_nothing() -> None:
    assert clusters([]).tolist() == []
    assert near_pairs([], ["a"]) == near_pairs(["a"], []) == []


def test_shingles_are_three_tokens_that_follow_each_other() -> None:
    assert shingles("A b, c") == {"a b ,", "b , c"}
    assert shingles("a B c") == shingles("a  b c") == {"a b c"}
    assert shingles("") == {""}
    assert jaccard(frozenset(), frozenset()) == 1.0


def test_a_new_text_is_joined_to_the_clusters_there_are() -> None:
    texts = ["a b c d e f", "x y z", "a b c d e f"]
    assert join(3, [[0, 2]], texts, np.array([0, 1], np.int32)).tolist() == [0, 1, 0]
