"""What the base writes for its own training, and reads beside it, is part of what a run takes."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.outlook.own import Rows, drawn, rows_of, with_own
from pipeline.outlook.training import TrainingCost
from pipeline.spec.train import TrainSpec

PLAIN = TrainingCost(tokens=4_000, seconds=8.0, memory=1, adapter=2, row=20.0)  # 100 rows, twice


def spec(**told: Any) -> TrainSpec:
    return TrainSpec(base="b", **{"budget_rows": 100, "replay": 0.2, "epochs": 2, **told})


@pytest.mark.parametrize(
    ("there", "own", "expected"),
    [(500, 0, Rows(80, 20, 0)), (500, 30, Rows(50, 20, 30)), (7, 30, Rows(7, 20, 30))],
)
def test_own_text_and_replay_leave_the_gaps_the_rest(there: int, own: int, expected: Rows) -> None:
    assert rows_of(spec(), there, own) == expected


@pytest.mark.parametrize(
    ("draws", "made"),
    [(0, 0), (1, 4), (4, 4), (5, 8), (16, 16)],  # four are drawn together
)
def test_every_draw_reads_the_question_anew(draws: int, made: int) -> None:
    asked = {"jobs": 30.0, "days": 10.0}
    assert drawn(spec(own_answers=draws), 50, asked) == made * 50 * 20


def test_a_capability_whose_answer_is_not_generated_draws_nothing() -> None:
    assert drawn(spec(own_answers=4), 50, {"choice": 0.0, "jobs": 30.0}) == 4 * 25 * 30
    assert drawn(spec(own_answers=4), 50, {"choice": 0.0}) == 0
    assert drawn(spec(own_answers=4), 50, {}) == 0


def test_rows_of_own_text_are_as_long_as_they_may_be() -> None:
    found = with_own(PLAIN, spec(), Rows(50, 20, 30), 100.0)
    assert (found.tokens, found.again) == (4_000 + 2 * 30 * 100, 0)
    assert found.seconds == pytest.approx(8.0 * found.tokens / 4_000)
    assert with_own(PLAIN, spec(), Rows(80, 20, 0), 100.0) == PLAIN


def test_kl_is_a_pass_of_the_base_over_what_is_kept() -> None:
    found = with_own(PLAIN, spec(kl=0.5), Rows(80, 20, 0), 100.0)
    assert (found.tokens, found.again) == (4_000, 2 * 20 * 20)
    assert found.seconds == pytest.approx(8.0 + 0.5 * 800 * 8.0 / 4_000)
    both = with_own(PLAIN, spec(kl=0.5), Rows(50, 20, 30), 100.0)
    assert both.again == 2 * (20 * 20 + 30 * 100)
    none = TrainingCost(0, 0.0, 1, 0, 0.0)
    assert with_own(none, spec(kl=0.5), Rows(0, 20, 30), 100.0) == none
