"""When a run stops early, and which check is the best."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.losses.batches import cuts, is_out_of_memory
from pipeline.training.record.metrics import StepMetrics
from pipeline.training.record.watch import judge


def step(number: int, loss: float | None = None, probe: float | None = None) -> StepMetrics:
    return StepMetrics(
        step=number,
        steps=100,
        epoch=0,
        loss=1.0,
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens=1,
        trained_tokens=1,
        seconds=0.1,
        validation_loss=loss,
        probe=probe,
    )


def test_nothing_is_judged_before_the_first_check() -> None:
    assert judge([step(1), step(2)], 1).best_step is None
    assert not judge([step(1), step(2)], 1).stop


def test_the_lowest_loss_is_the_best_and_patience_runs_out() -> None:
    run = [step(1), step(2, 2.0), step(3), step(4, 1.0), step(6, 1.5)]
    assert (judge(run, 2).best_step, judge(run, 2).stop) == (4, False)
    assert judge(run, 1).stop
    assert judge([*run, step(8, 1.0)], 2) == judge([*run, step(8, 3.0)], 2)  # a tie is no gain
    better = judge([*run, step(8, 0.9)], 2)
    assert (better.best_step, better.stop) == (8, False)


def test_a_probe_goes_before_the_loss() -> None:
    run = [step(2, 1.0, 0.5), step(4, 2.0, 0.75), step(6, 1.5, 0.75)]
    assert judge(run, 3).best_step == 6


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    assert judge([step(2, 1.0), step(4, float("inf"))], 3).best_step == 2


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
