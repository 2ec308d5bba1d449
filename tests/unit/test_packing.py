"""The plan of batches: complete, within budget, even, and the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.training.packing import epoch_order, plan_batches
from pipeline.training.spec import TrainSpec

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=120)


@given(lengths=LENGTHS, epochs=st.integers(1, 3), budget=st.integers(64, 500))
@settings(max_examples=80, deadline=None)
def test_every_row_once_an_epoch_and_within_the_budget(
    lengths: list[int], epochs: int, budget: int
) -> None:
    plan = plan_batches(lengths, epochs=epochs, seed=3, budget=budget)
    for epoch in range(epochs):
        rows = Counter(row for batch in plan if batch.epoch == epoch for row in batch.rows)
        assert rows == Counter(range(len(lengths)))
    for batch in plan:
        assert len(batch.rows) == 1 or sum(lengths[row] for row in batch.rows) <= budget
        assert list(batch.rows) == sorted(batch.rows, key=lambda row: (-lengths[row], row))
    assert [batch.epoch for batch in plan] == sorted(batch.epoch for batch in plan)


def test_batches_are_about_equally_full() -> None:
    lengths = [30 + (row * 7) % 21 for row in range(1500)]
    plan = plan_batches(lengths, epochs=1, seed=0, budget=2048)
    tokens = [sum(lengths[row] for row in batch.rows) for batch in plan]
    assert len(plan) <= 1.1 * sum(lengths) / 2048
    assert min(tokens) > 0.9 * max(tokens)  # a greedy fill would leave a rest of any size


def test_the_plan_is_fixed_for_ever() -> None:
    plan = plan_batches([10 + row % 50 for row in range(200)], epochs=2, seed=1, budget=512)
    shown = repr([(batch.epoch, batch.rows) for batch in plan])
    assert hashlib.sha256(shown.encode()).hexdigest()[:16] == "06d5ad096325be9c"


def test_seed_and_epoch_change_the_order() -> None:
    orders = {tuple(epoch_order(50, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_a_row_over_the_budget_is_a_batch_of_its_own() -> None:
    plan = plan_batches([10, 900, 10], epochs=1, seed=0, budget=100)
    assert (1,) in [batch.rows for batch in plan]


@pytest.mark.parametrize(
    ("key", "value"),
    [("rank", 0), ("learning_rate", 0.0), ("learning_rate", 1.0), ("epochs", 0), ("targets", [])],
)
def test_a_spec_without_sense_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        TrainSpec.model_validate({"base": "nano", key: value})


def test_what_does_not_touch_the_weights_is_not_part_of_what_decides_them() -> None:
    plain = TrainSpec(base="nano")
    same = TrainSpec(base="other", pool=("a",), budget_rows=5, checkpoint_steps=1, alpha=32)
    assert plain.deciding() == same.deciding()
    assert TrainSpec(base="nano", seed=1).deciding() != plain.deciding()
