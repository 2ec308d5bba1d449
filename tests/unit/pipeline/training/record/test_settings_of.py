"""What a run was trained by is what its record says, whatever has become the default since."""

from __future__ import annotations

from typing import Any

from pipeline.spec.train import TrainSpec
from pipeline.verbs.reproduce import settings_of
from registry.store.kinds import RunMeta


def run(config: dict[str, Any], **deciding: Any) -> RunMeta:
    return RunMeta(
        stage="train",
        key="k",
        status="done",
        started_at="2026-01-02T03:04:05+00:00",
        ended_at="2026-01-02T03:04:06+00:00",
        seconds=1.0,
        code_version=3,
        inputs={"train": deciding},
        config=config,
        seed=0,
        result={},
        outputs=(),
        environment={},
        hardware={},
    )


def test_a_run_from_before_rows_made_a_batch() -> None:
    before = {"base": "b", "epochs": 3, "learning_rate": None, "activation_checkpointing": False}
    spec = settings_of(run(before, learning_rate=2e-4), "other")
    assert (spec.base, spec.epochs, spec.min_steps) == ("other", 3, 1)
    assert spec.batch_rows > 10**6
    assert spec.on_base(192).rate == 2e-4


def test_a_run_of_now() -> None:
    now = TrainSpec(base="b", batch_rows=5, dtype="bf16", schedule="linear")
    assert settings_of(run(now.model_dump(mode="json"), learning_rate=1.0), "b") == now
