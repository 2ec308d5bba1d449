"""An index of row hashes finds what a dict finds, in the order in which it came."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.duplicates.hash_index import HashIndex, as_texts, hashes_of


def names(numbers: list[int]) -> list[str]:
    """Hashes of which many have their first 16 digits in common."""
    whole = [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]
    return [f"{number % 500:016x}{one[16:]}" for number, one in zip(numbers, whole, strict=True)]


@given(st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=8))
def test_it_is_a_dict_by_first_occurrence(batches: list[list[int]]) -> None:
    index = HashIndex()
    wanted: dict[str, int] = {}
    for batch in batches:
        texts = names(batch)
        found = index.find(hashes_of(pa.array(texts, pa.string())))
        assert found.tolist() == [wanted.get(text, -1) for text in texts]
        first = []
        for text in texts:
            first.append(text not in wanted)
            wanted.setdefault(text, len(wanted))
        places, new = index.place(hashes_of(pa.array(texts, pa.string())))
        assert places.tolist() == [wanted[text] for text in texts]
        assert new.tolist() == first
    assert len(index) == len(wanted)
    assert as_texts(index.hashes).to_pylist() == list(wanted)


def test_many_batches() -> None:
    rng = np.random.default_rng(1)
    index = HashIndex()
    wanted: dict[str, int] = {}
    for _ in range(40):
        texts = names(rng.integers(0, 20_000, 700).tolist())
        places, _ = index.place(hashes_of(pa.array(texts)))
        for text in texts:
            wanted.setdefault(text, len(wanted))
        assert places.tolist() == [wanted[text] for text in texts]


def test_a_slice_is_read_as_a_slice() -> None:
    texts = pa.array(names([1, 2, 3, 4]))
    assert as_texts(hashes_of(texts.slice(1, 2))).to_pylist() == texts.to_pylist()[1:3]


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "0" * 63 + "A"])
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        hashes_of(pa.array(["1" * 64, text]))
