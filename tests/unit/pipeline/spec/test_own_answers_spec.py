"""`train.own_answers`: what it is refused beside, and that it decides rows, not the training."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.spec.train import TrainSpec


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_own_answers_are_refused_by_name_where_answers_are_not_all(objective: Any) -> None:
    with pytest.raises(ValueError, match=f"own_answers is for sft, and {objective} learns"):
        TrainSpec(base="b", own_answers=4, objective=objective)
    TrainSpec(base="b", objective=objective)


def test_own_answers_are_at_most_sixteen_and_decide_no_training_by_themselves() -> None:
    with pytest.raises(ValueError, match="less than or equal to 16"):
        TrainSpec(base="b", own_answers=17)
    assert TrainSpec(base="b", own_answers=16).deciding() == TrainSpec(base="b").deciding()
