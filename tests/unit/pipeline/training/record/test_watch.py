"""When a run stops early, and which check is the best."""

from __future__ import annotations

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
