"""A training's figures as rows in SQL: those of its steps, once the run is committed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from pipeline.spec.train import TrainSpec
from pipeline.training.examples.encode import TrainingRow
from pipeline.training.fit import FitResult, fit
from pipeline.training.record.metrics import StepMetrics
from pipeline.training.record.run_metrics import (
    MetricPoint,
    measured_steps,
    put_metrics,
    step_values,
)
from pipeline.training.record.trackers import open_trackers
from pipeline.workspace.stage import StageContext, StageOutcome, StageOutput, run_stage
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from registry.catalog.catalog import Catalog
from registry.catalog.views import stored_columns
from registry.models.load import BaseSpec, LoadedModel, load_model
from registry.store.filenames import METRICS
from registry.store.objects import Store
from tests.support import tiny_models

SPEC = TrainSpec(
    base="tiny", rank=4, epochs=2, batch_tokens=128, min_steps=1, checkpoint_steps=2, seed=5
)
NAMES = ("grad_norm", "learning_rate", "loss", "tokens", "tokens_per_second", "trained_tokens")
ALL = "SELECT run_id, stage, step, name, value, seconds FROM run_metrics ORDER BY step, name"


class KilledError(Exception):
    """Stands for what ends a process in the middle: nothing of it is recorded."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tmp_path_factory.mktemp("llama")
    tiny_models.save(root, "llama")
    return load_model("tiny", BaseSpec(model=str(root), dtype="fp32"), root)


@pytest.fixture
def kept(tmp_path: Path) -> WorkspaceStore:
    root = tmp_path / ".gapmend"
    return WorkspaceStore(tmp_path, Store(root), Catalog(root, wait_s=30))


def rows() -> list[TrainingRow]:
    return [
        TrainingRow(
            uid=uid,
            messages=(
                {"role": "user", "content": f"What is {uid} and {uid}?"},
                {"role": "assistant", "content": f"It is {uid + uid}."},
            ),
            tools=None,
            capability="sums",
        )
        for uid in range(24)
    ]


def trained(
    kept: WorkspaceStore, loaded: LoadedModel, on_step: Callable[[StepMetrics], None] | None = None
) -> tuple[StageOutcome, FitResult]:
    """Train in a stage that puts the figures as its second output."""
    results: list[FitResult] = []

    def work(ctx: StageContext) -> StageOutput:
        fitted = fit(loaded, rows(), SPEC, ctx.workdir, on_step=on_step)
        results.append(fitted)
        adapter = kept.store.put("adapter", None, identity={"run": ctx.run_id}, meta={})
        figures = put_metrics(kept.store, measured_steps(fitted.losses), run_id=ctx.run_id)
        return StageOutput({}, [("adapter", adapter), ("metrics", figures)])

    return run_stage(kept, Ui(), "train", {"n": 1}, work, version=1), results[0]


def test_each_step_of_a_training_is_there_with_its_values(
    kept: WorkspaceStore, loaded: LoadedModel
) -> None:
    outcome, fitted = trained(kept, loaded)
    assert fitted.steps > 4
    found = kept.catalog.sql(ALL).rows
    assert {row[:2] for row in found} == {(outcome.run_id, "train")}
    keys = [(row[2], row[3]) for row in found]
    assert keys == list(itertools.product(range(1, fitted.steps + 1), NAMES))
    values = {(row[2], row[3]): row[4] for row in found}
    for step in fitted.losses:
        assert {name: values[step.step, name] for name in NAMES} == step_values(step)
    assert found[-1][5] == pytest.approx(fitted.seconds)
    by_step = dict.fromkeys((row[2], row[5]) for row in found)
    assert len(by_step) == fitted.steps  # one time a step
    assert sorted(by_step) == list(by_step)
    assert sorted(by_step, key=lambda one: one[1]) == list(by_step)


def test_a_run_that_went_on_after_a_kill_has_each_step_once(
    kept: WorkspaceStore, loaded: LoadedModel
) -> None:
    def kill(step: StepMetrics) -> None:
        if step.step == 5:
            raise KilledError

    with pytest.raises(KilledError):
        trained(kept, loaded, on_step=kill)
    assert kept.catalog.sql(ALL).rows == []
    _, fitted = trained(kept, loaded)
    assert fitted.resumed_from == 4
    steps = kept.catalog.sql("SELECT step FROM run_metrics WHERE name = 'loss' ORDER BY step").rows
    assert [row[0] for row in steps] == list(range(1, fitted.steps + 1))


def test_tensorboard_shows_what_sql_says_also_after_a_kill(
    kept: WorkspaceStore, loaded: LoadedModel, tmp_path: Path
) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )

    def follow(until: int) -> Callable[[StepMetrics], None]:
        trackers = open_trackers(["tensorboard"], tmp_path, "run-1", {}, say=pytest.fail)
        begun: list[int] = []

        def tell(step: StepMetrics) -> None:
            if not begun:
                begun.append(step.step)
                trackers.begin(step.step)
            trackers.log(step.step, step_values(step))
            if step.step == until:
                raise KilledError

        return tell

    with pytest.raises(KilledError):
        trained(kept, loaded, on_step=follow(5))
    trained(kept, loaded, on_step=follow(0))
    reader = events.EventAccumulator(str(tmp_path / "tensorboard/run-1"))
    reader.Reload()
    for name in NAMES:
        asked = f"SELECT step, value FROM run_metrics WHERE name = '{name}' ORDER BY step"
        found = [(step, float(np.float32(value))) for step, value in kept.catalog.sql(asked).rows]
        assert [(point.step, point.value) for point in reader.Scalars(name)] == found


def test_figures_that_were_never_committed_are_not_seen(kept: WorkspaceStore) -> None:
    put_metrics(kept.store, [MetricPoint(1, "loss", 2.5, 0.1)], run_id="0" * 64)
    assert kept.catalog.sql(ALL).rows == []


def test_what_is_measured_at_some_steps_has_rows_there_alone(kept: WorkspaceStore) -> None:
    plain = StepMetrics(1, 2, 0, 2.5, 1e-3, 0.5, 100, 40, 0.25)
    checked = replace(plain, step=2, seconds=0.5, validation_loss=1.5, probe=0.75)

    def work(ctx: StageContext) -> StageOutput:
        ref = put_metrics(kept.store, measured_steps([plain, checked]), run_id=ctx.run_id)
        return StageOutput({}, [("metrics", ref)])

    run_stage(kept, Ui(), "train", {"n": 1}, work, version=1)
    found = kept.catalog.sql(f"SELECT step, name, value, seconds FROM ({ALL})").rows
    assert {row[1] for row in found if row[0] == 1} == set(NAMES)
    assert [row for row in found if row[1] not in NAMES] == [
        (2, "probe", 0.75, 0.75),
        (2, "validation_loss", 1.5, 0.75),
    ]
    assert [row[2] for row in found if row[1] == "tokens_per_second"] == [400.0, 200.0]


def test_a_step_has_one_figure_of_a_name(kept: WorkspaceStore) -> None:
    doubled = [MetricPoint(3, "loss", 2.5, 0.1), MetricPoint(3, "loss", 2.5, 0.2)]
    with pytest.raises(ValueError, match="step 3 has two figures of the name loss"):
        put_metrics(kept.store, doubled, run_id="0" * 64)


def test_the_file_has_the_columns_that_the_view_expects(kept: WorkspaceStore) -> None:
    ref = put_metrics(kept.store, [MetricPoint(1, "loss", 2.5, 0.1)], run_id="0" * 64)
    schema = parquet.read_schema(ref.path / METRICS)
    sql = {"int64": "BIGINT", "string": "VARCHAR", "double": "DOUBLE"}
    written = tuple((field.name, sql[str(field.type)]) for field in schema)
    assert written == stored_columns("stored_metrics")
