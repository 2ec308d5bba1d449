"""status in a workspace without runs, with a failed one, one elsewhere, and a broken file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.text import Text

from pipeline.report.tables import running_line, status_tables
from pipeline.training.record.folder import CHECKPOINTS, METRICS, so_far
from pipeline.training.record.metrics import MetricsFile, StepMetrics
from pipeline.verbs.status import status
from pipeline.workspace.progress_file import PROGRESS, Counted, Told
from pipeline.workspace.stage import StageContext, StageOutput, run_stage
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from registry.catalog.catalog import Catalog
from registry.store.objects import Store

BEGAN = 946_684_800.0  # 2000-01-01
GONE = Told("train", None, "r", "elsewhere", 4_000_000, 0.0, BEGAN)


@pytest.fixture
def kept(tmp_path: Path) -> WorkspaceStore:
    state = tmp_path / ".gapmend"
    return WorkspaceStore(tmp_path, Store(state), Catalog(state))


def lines(kept: WorkspaceStore) -> list[str]:
    shown = status_tables(status(kept))
    return [one.plain for one in shown if isinstance(one, Text)]


def folder(kept: WorkspaceStore, name: str = "train-00") -> Path:
    made = kept.state / "work" / name
    made.mkdir(parents=True)
    return made


def test_where_nothing_was_run_each_is_one_line(kept: WorkspaceStore) -> None:
    subjects = ("datasets", "verdicts", "adapters", "aliases", "looks", "runs")
    assert lines(kept) == ["running: nothing", *(f"{name}: none yet" for name in subjects)]


def test_a_failed_run_is_among_the_runs_and_nothing_runs(kept: WorkspaceStore) -> None:
    def work(ctx: StageContext) -> StageOutput:
        (ctx.workdir / "half").touch()
        assert [one["stage"] for one in status(kept)["running"]] == ["gap"]
        raise ArithmeticError("it diverged")

    with pytest.raises(ArithmeticError):
        run_stage(kept, Ui(), "gap", {"n": 1}, work, version=1)
    found = status(kept)
    assert [(one["stage"], one["status"]) for one in found["runs"]] == [("gap", "failed")]
    (row,) = found["runs"]
    assert lines(kept)[-1] == f"gap of {row['started_at']} failed: ArithmeticError: it diverged"
    assert found["running"] == []


def test_a_stage_elsewhere_and_a_broken_file_are_a_line_each(kept: WorkspaceStore) -> None:
    counted = Counted("gap · dev", 40, 900, 0, BEGAN, "")
    (folder(kept) / PROGRESS).write_text(json.dumps(asdict(GONE) | {"doing": asdict(counted)}))
    (folder(kept, "gap-00") / PROGRESS).write_text('{"stage": "ga')
    elsewhere, broken = lines(kept)[:2]
    assert elsewhere == (
        "train · not known, begun 2000-01-01 00:00:00 UTC, process 4000000: gap · dev, "
        "40 of 900; it was begun on elsewhere: look there whether it runs"
    )
    assert broken == (
        "gap · not known: work/gap-00/progress.json can't be read; the next run writes it anew"
    )
    assert json.loads(json.dumps(status(kept)["running"]))[1]["pid"] is None


def test_what_has_not_begun_to_count_says_no_number(kept: WorkspaceStore) -> None:
    counted = Counted("train · nano", 0, None, 0, BEGAN, "")
    (folder(kept) / PROGRESS).write_text(json.dumps(asdict(GONE) | {"doing": asdict(counted)}))
    (one,) = status(kept)["running"]
    assert ", process 4000000: train · nano; it was begun on elsewhere" in running_line(one)
    counted = Counted("export", 1200, 3600, 0, BEGAN, "", "rows")
    (folder(kept, "x-1") / PROGRESS).write_text(
        json.dumps(asdict(GONE) | {"doing": asdict(counted)})
    )
    assert "export, 1,200 of 3,600 rows; it was" in running_line(status(kept)["running"][1])


def test_a_dataset_s_stage_is_called_by_its_name(kept: WorkspaceStore) -> None:
    told = GONE.__class__(**{**asdict(GONE), "stage": "ingest", "about": "tickets"})
    (folder(kept) / PROGRESS).write_text(json.dumps(asdict(told)))
    (one,) = status(kept)["running"]
    assert running_line(one).startswith("ingest tickets · not known, begun ")


def test_a_training_says_its_step_loss_pace_and_checkpoint(tmp_path: Path) -> None:
    assert so_far(tmp_path) is None
    file = MetricsFile(tmp_path / METRICS)
    for step in range(1, 31):
        seconds = 9.0 if step == 1 else 0.5  # the first one is slower, and 20 are the pace
        file.append(
            StepMetrics(step, 50, 0, 1.5, 1e-3, 1.0, 100, 80, seconds, 2.5 if step == 9 else None)
        )
    (tmp_path / CHECKPOINTS / "step-00000020").mkdir(parents=True)
    (tmp_path / CHECKPOINTS / "step-00000030.tmp").mkdir()
    with (tmp_path / METRICS).open("a") as half:
        half.write('{"step": 31, "st')
    found = so_far(tmp_path)
    assert found is not None
    assert (found.step, found.steps, found.loss, found.validation_loss) == (30, 50, 1.5, 2.5)
    assert (found.tokens_per_second, found.seconds_left, found.checkpoint) == (200, 10, 20)
