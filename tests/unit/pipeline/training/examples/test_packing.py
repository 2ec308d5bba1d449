"""The plan of batches: complete, within budget, even, and the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.spec.train import TrainSpec
from pipeline.training.examples.encode import IGNORED, EncodedRow
from pipeline.training.examples.packing import (
    Family,
    RowLimits,
    epoch_order,
    families,
    plan_batches,
)

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=120)


@given(lengths=LENGTHS, epochs=st.integers(1, 3), budget=st.integers(64, 500))
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


ROWS = st.builds(
    RowLimits,
    most=st.integers(1, 40),
    batches=st.integers(1, 100),
    fewest=st.sampled_from([1, 4]),
)


@given(lengths=LENGTHS, epochs=st.integers(1, 3), budget=st.integers(64, 500), rows=ROWS)
def test_rows_are_limited_and_the_least_steps_are_made(
    lengths: list[int], epochs: int, budget: int, rows: RowLimits
) -> None:
    plan = plan_batches(lengths, epochs=epochs, seed=3, budget=budget, rows=rows)
    for epoch in range(epochs):
        seen = Counter(row for batch in plan if batch.epoch == epoch for row in batch.rows)
        assert seen == Counter(range(len(lengths)))
    for batch in plan:
        assert len(batch.rows) <= rows.most
        assert len(batch.rows) == 1 or sum(lengths[row] for row in batch.rows) <= budget
    passes = epochs * len(lengths)
    if passes >= rows.fewest * rows.batches:  # else there are too few rows for so many batches
        assert len(plan) >= rows.batches


@given(lengths=LENGTHS, epochs=st.floats(0.01, 3), rows=st.one_of(st.none(), ROWS))
def test_a_part_of_a_pass_is_its_first_part(
    lengths: list[int], epochs: float, rows: RowLimits | None
) -> None:
    plan = plan_batches(lengths, epochs=epochs, seed=3, budget=300, rows=rows)
    assert plan == plan_batches(lengths, epochs=epochs, seed=3, budget=300, rows=rows)
    last = int(epochs)
    for epoch in range(last + 1):
        seen = Counter(row for batch in plan if batch.epoch == epoch for row in batch.rows)
        order = epoch_order(len(lengths), seed=3, epoch=epoch)
        part = 1.0 if epoch < last else epochs - last
        count = max(1, round(part * len(lengths))) if part else 0
        assert seen == Counter(order[:count])


def test_few_rows_make_small_batches_and_many_make_full_ones() -> None:
    def sizes(count: int) -> set[int]:
        rows = RowLimits(most=16, batches=60)
        plan = plan_batches([50] * count, epochs=2, seed=0, budget=4096, rows=rows)
        assert len(plan) >= min(60, 2 * count)
        return {len(batch.rows) for batch in plan}

    # By their tokens alone 110 rows of 50 would be 4 steps, and 500 would be 14.
    assert sizes(20) == {1}
    assert sizes(110) <= {2, 3}
    assert sizes(500) <= {15, 16}
    assert sizes(5000) <= {15, 16}


def test_long_rows_are_limited_by_their_tokens() -> None:
    plan = plan_batches([1000] * 64, epochs=1, seed=0, budget=4096, rows=RowLimits(16))
    assert {len(batch.rows) for batch in plan} == {4}


def test_a_family_of_more_rows_than_a_batch_is_parted() -> None:
    shared = [Family(tuple(range(9)), 40)]
    plan = plan_batches([50] * 9, epochs=1, seed=0, budget=900, shared=shared, rows=RowLimits(3))
    assert [len(batch.rows) for batch in plan] == [3, 3, 3]


def row(prompt: list[int], answer: list[int]) -> EncodedRow:
    ids = np.array(prompt + answer, dtype=np.int32)
    labels = np.array([IGNORED] * len(prompt) + answer, dtype=np.int32)
    return EncodedRow(0, ids, labels)


def test_rows_of_one_prompt_are_a_family() -> None:
    prompt, other, short = list(range(50)), list(range(1, 51)), [1, 2, 3]
    rows = [
        row(prompt, [7]),
        row(other, [8, 9]),
        row(short, [1]),
        row(prompt, [8]),
        row(short, [2]),  # too little to be worth sharing
        row(other, [8, 7]),  # shares the answer's first token as well
        row([*prompt, 7], [8]),  # another prompt, though it begins with one
    ]
    assert families(rows) == (Family((0, 3), 50), Family((1, 5), 51))
    assert families([row(prompt, [7, 8])] * 3) == (Family((0, 1, 2), 51),)


@given(data=st.data(), epochs=st.integers(1, 2), budget=st.integers(64, 500))
def test_families_stay_together_within_the_budget(
    data: st.DataObject, epochs: int, budget: int
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=20))
    lengths: list[int] = []
    shared: list[Family] = []
    for size in sizes:
        prefix = data.draw(st.integers(16, 100))
        rows = tuple(range(len(lengths), len(lengths) + size))
        lengths += [prefix + data.draw(st.integers(1, 60)) for _ in rows]
        if size > 1:
            shared.append(Family(rows, prefix))
    prefix_of = {row: family.prefix for family in shared for row in family.rows}
    family_of = {row: family for family in shared for row in family.rows}

    def tokens(rows: tuple[int, ...]) -> int:
        own = sum(lengths[row] - prefix_of.get(row, 0) for row in rows)
        return own + sum(family.prefix for family in {family_of[r] for r in rows if r in family_of})

    plan = plan_batches(lengths, epochs=epochs, seed=2, budget=budget, shared=shared)
    assert plan == plan_batches(lengths, epochs=epochs, seed=2, budget=budget, shared=shared)
    for epoch in range(epochs):
        batches = [batch.rows for batch in plan if batch.epoch == epoch]
        assert Counter(r for rows in batches for r in rows) == Counter(range(len(lengths)))
        for family in shared:
            if tokens(family.rows) <= budget:
                assert any(set(family.rows) <= set(rows) for rows in batches)
    for batch in plan:
        assert len(batch.rows) == 1 or tokens(batch.rows) <= budget


def test_a_family_over_the_budget_is_parted() -> None:
    lengths = [60] * 6
    plan = plan_batches(
        lengths, epochs=1, seed=0, budget=90, shared=[Family((0, 1, 2, 3, 4, 5), 40)]
    )
    assert [len(batch.rows) for batch in plan] == [2, 2, 2]  # 40 + 2 * 20 each


def test_shared_tokens_count_once() -> None:
    lengths = [200] * 8
    apart = plan_batches(lengths, epochs=1, seed=0, budget=400)
    shared = [Family((0, 1, 2, 3), 160), Family((4, 5, 6, 7), 160)]
    together = plan_batches(lengths, epochs=1, seed=0, budget=400, shared=shared)
    assert (len(apart), len(together)) == (4, 2)


def test_the_plan_with_families_is_fixed_for_ever() -> None:
    lengths = [40 + n % 50 for n in range(200)]
    shared = [Family((n, n + 1, n + 2), 30) for n in range(0, 150, 5)]
    plan = plan_batches(lengths, epochs=2, seed=1, budget=512, shared=shared)
    shown = repr([(batch.epoch, batch.rows) for batch in plan])
    assert hashlib.sha256(shown.encode()).hexdigest()[:16] == "9f874f63fac5502b"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rank", 0),
        ("learning_rate", 0.0),
        ("learning_rate", 1.0),
        ("epochs", 0),
        ("epochs", -0.5),
        ("targets", []),
        ("batch_rows", 0),
        ("batch_rows", 2.5),
        ("min_steps", 0),
        ("warmup", 1.0),
        ("warmup", -0.1),
        ("schedule", "step"),
        ("weight_decay", -1),
        ("max_grad_norm", 0),
        ("dropout", 1.0),
        ("activation_checkpointing", "often"),
    ],
)
def test_a_spec_without_sense_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        TrainSpec.model_validate({"base": "nano", key: value})


def test_what_does_not_touch_the_weights_is_not_part_of_what_decides_them() -> None:
    plain = TrainSpec(base="nano")
    same = TrainSpec(base="other", pool=("a",), budget_rows=5, checkpoint_steps=1, alpha=32)
    assert plain.deciding() == same.deciding()
    assert plain.deciding() == TrainSpec(base="nano", activation_checkpointing=True).deciding()
    for key, value in (
        *(("seed", 1), ("batch_rows", 8), ("min_steps", 1), ("epochs", 1.5), ("warmup", 0.1)),
        *(("schedule", "linear"), ("weight_decay", 0.1), ("max_grad_norm", None)),
        *(("dropout", 0.1), ("dtype", "bf16")),
    ):
        other = TrainSpec.model_validate({"base": "nano", key: value})
        assert other.deciding() != plain.deciding(), key


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_dropout_is_not_for_comparing_likelihoods(objective: str) -> None:
    with pytest.raises(ValidationError, match="dropout"):
        TrainSpec.model_validate({"base": "nano", "objective": objective, "dropout": 0.1})


def test_turns_of_one_conversation_share_what_they_have_in_common() -> None:
    """Each run of neighbours shares its first one's prompt, and the runs save most together."""
    first, second = list(range(100, 130)), list(range(200, 300))
    turns = [
        row(first, [7, 8]),
        row([*first, 8, *second], [9, 8]),  # the thought (7) is gone
        row([*first, 8, *second, 9, *range(300, 310)], [7, 8]),
    ]
    # All three would save 2 * 30 tokens, the last two alone 131.
    assert families(turns) == (Family((1, 2), 131),)
    assert families(turns[:2]) == (Family((0, 1), 30),)
    assert families([turns[1], turns[0]]) == (Family((1, 0), 30),)
    other = [EncodedRow(uid, one.input_ids, one.labels) for uid, one in enumerate(turns)]
    assert families(other) == ()
