"""A batch in pieces, and which errors say that it has to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.losses.batches import cuts, is_out_of_memory


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 64))
def test_pieces_are_all_rows_once_and_none_is_empty(lengths: list[int], pieces: int) -> None:
    found = cuts(lengths, pieces)
    assert 1 <= len(found) <= min(pieces, len(lengths))
    rows = [row for cut in found for row in range(len(lengths))[cut]]
    assert rows == list(range(len(lengths)))
    assert all(cut.stop > cut.start for cut in found)


def test_a_batch_of_equal_rows_is_halved() -> None:
    assert cuts([10] * 8, 2) == [slice(0, 4), slice(4, 8)]
    assert cuts([10] * 8, 8) == [slice(row, row + 1) for row in range(8)]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes don't match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, *, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory
