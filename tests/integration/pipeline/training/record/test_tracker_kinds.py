"""Trackers with their real packages: what each of them keeps is what it was told.

TensorBoard is installed for development. The others' tests run where their package is installed;
where it is not, they are skipped and say so.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.training.record.trackers import Trackers, open_trackers

ROOT = Path(__file__).resolve().parents[5]
CONFIG = {"rank": 4, "learning_rate": 2e-4, "targets": ("q_proj", "v_proj"), "alpha": None}
# Warnings of packages that these three bring are not ours to heed.
THEIR_WARNINGS = pytest.mark.filterwarnings("ignore")


def values(step: int) -> dict[str, float]:
    return {"loss": 3.0 / step, "learning_rate": 1e-4 * step, "tokens": 128.0 + step}


def follow(trackers: Trackers, first: int, last: int) -> None:
    with trackers:
        trackers.begin(first)
        for step in range(first, last + 1):
            trackers.log(step, values(step))


def killed(*, name: str, folder: Path, first: int, last: int) -> None:
    """In a process of its own: begin, log, and die without a word."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from pipeline.training.record.trackers import open_trackers\n"
        "from tests.integration.pipeline.training.record import test_tracker_kinds as here\n"
        f"t = open_trackers([{name!r}], Path({str(folder)!r}), 'run-1', here.CONFIG, say=print)\n"
        f"t.begin({first})\n"
        f"for step in range({first}, {last + 1}): t.log(step, here.values(step))\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    assert done.stdout == ""


def read_tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    """Every point by name and step; a step that stands there twice is an error."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = events.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    found = {}
    for name in reader.Tags()["scalars"]:
        points = reader.Scalars(name)
        found[name] = {point.step: point.value for point in points}
        assert len(found[name]) == len(points)
    return found


def stored(first: int, last: int) -> dict[str, dict[int, float]]:
    """The values of these steps as event files hold them, in single precision."""
    steps = range(first, last + 1)
    return {name: {s: float(np.float32(values(s)[name])) for s in steps} for name in values(1)}


def test_tensorboard_gives_the_values_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    said: list[str] = []
    follow(open_trackers(["tensorboard"], tmp_path, "run-1", CONFIG, say=said.append), 1, 30)
    assert said == []
    assert read_tensorboard(tmp_path / "tensorboard/run-1") == stored(1, 30)


def test_tensorboard_goes_on_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    killed(name="tensorboard", folder=tmp_path, first=1, last=12)
    run = tmp_path / "tensorboard/run-1"
    assert read_tensorboard(run) == stored(1, 12)  # nothing was waiting to be written
    follow(open_trackers(["tensorboard"], tmp_path, "run-1", CONFIG, say=print), 9, 20)
    assert read_tensorboard(run) == stored(1, 20)
    # From the start again: no checkpoint had been made.
    follow(open_trackers(["tensorboard"], tmp_path, "run-1", CONFIG, say=print), 1, 5)
    assert read_tensorboard(run) == stored(1, 5)


def test_tensorboard_where_no_file_can_be_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "tensorboard").write_text("a file where a folder has to be")
    said: list[str] = []
    follow(open_trackers(["tensorboard"], tmp_path, "run-1", CONFIG, say=said.append), 1, 3)
    assert len(said) == 1
    assert said[0].startswith("the tracker 'tensorboard' failed and is left out")


@THEIR_WARNINGS
def test_mlflow_keeps_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="mlflow is installed without its database")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said: list[str] = []
    for first, last in ((1, 12), (9, 20)):
        follow(open_trackers(["mlflow"], tmp_path, "run-1", CONFIG, say=said.append), first, last)
    assert said == []
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("gapmend").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert run.data.params == {
        "rank": "4", "learning_rate": "0.0002", "targets": "q_proj, v_proj",
    }  # fmt: skip
    assert set(run.data.tags) == {"gapmend.run", "mlflow.runName"}
    for name in values(1):
        points = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)]
        assert points == [(step, values(step)[name]) for step in range(1, 21)]


def wandb_records(file: Path) -> list[Any]:
    """The records of a .wandb file: a header, then blocks of checksum, length, type and record."""
    from importlib import import_module

    messages = import_module("wandb.proto.wandb_internal_pb2")
    data, at, found = file.read_bytes(), 7, []
    assert len(data) < 32768  # a longer file has records that are cut
    while at < len(data):
        _, size, _ = struct.unpack("<IHB", data[at : at + 7])
        found.append(messages.Record.FromString(data[at + 7 : at + 7 + size]))
        at += 7 + size
    return found


@THEIR_WARNINGS
def test_wandb_without_a_login_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    for key in [key for key in os.environ if key.startswith("WANDB")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    said: list[str] = []
    follow(open_trackers(["wandb"], tmp_path, "run-1", CONFIG, say=said.append), 1, 12)
    assert said == []
    wandb.teardown()  # as at exit: its own process has written everything
    (file,) = tmp_path.glob("wandb/wandb/offline-run-*/*.wandb")
    records = wandb_records(file)
    steps = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [{name: one[name] for name in values(1)} for one in steps] == [
        values(step) for step in range(1, 13)
    ]
    (run,) = [one.run for one in records if one.WhichOneof("record_type") == "run"]
    config = {one.key: json.loads(one.value_json) for one in run.config.update}
    assert {key: one for key, one in config.items() if key != "_wandb"} == {
        "rank": 4, "learning_rate": 2e-4, "targets": "q_proj, v_proj",
    }  # fmt: skip
    assert (run.run_id, run.host) == ("run-1", "")
    assert str(tmp_path).encode() not in file.read_bytes()


@THEIR_WARNINGS
def test_trackio_keeps_each_step_once(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    code = (
        "import json, sys; from pathlib import Path\n"
        "from pipeline.training.record.trackers import open_trackers\n"
        "from tests.integration.pipeline.training.record import test_tracker_kinds as here\n"
        "for first, last in ((1, 12), (9, 20)):\n"
        "    here.follow(\n"
        "        open_trackers(['trackio'], Path('.'), 'run-1', here.CONFIG, say=print),\n"
        "        first, last)\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "print(json.dumps(SQLiteStorage.get_logs('gapmend', 'run-1')))"
    )
    # Where it keeps its runs is decided when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "TRACKIO_DIR": str(tmp_path)},
    )  # fmt: skip
    found = [
        (one["step"], {name: one[name] for name in values(1)}) for one in json.loads(done.stdout)
    ]
    assert found == [(step, values(step)) for step in range(1, 21)]
