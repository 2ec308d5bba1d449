"""accelerate's trackers, opened so that they tell nothing of the machine and go on with a run.

`trackers.py` is the guard before them: what they are given has been through it.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.spec.train import TrackerName

    _Config = dict[str, "Shown"]

PROJECT = "gapmend"

# Figures and config are sent, and nothing of the machine.
_WANDB_SETTINGS = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "host": "",
    "init_timeout": 30,  # seconds for a server that doesn't answer, before the first step
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
# It counts its users, and tries a server that doesn't answer for minutes.
_MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
Shown = str | int | float | bool


@dataclass(frozen=True)
class _Opened:
    """A run at one of accelerate's trackers.

    Attributes:
        tracker: accelerate's, not started yet.
        last: the last step that the run has and would show twice; known once it is started.
        wants_config: it has to be given the run's config, once it is started.
        end: ends the run, done or failed, where accelerate's own way doesn't tell these apart.
    """

    tracker: Any
    last: Callable[[], int]
    wants_config: bool = False
    end: Callable[[bool], None] | None = None


class AccelerateTracker:
    """One run at one of accelerate's trackers; a `Tracker`."""

    def __init__(self, name: TrackerName, folder: Path) -> None:
        self._open = _OPEN[name]
        self._folder = folder

    def start(self, run_name: str, config: Mapping[str, Shown], *, first_step: int) -> int:
        """Open the run, or go on with it; see `Tracker`."""
        from accelerate import PartialState

        PartialState()  # accelerate's trackers log through it
        self._opened = self._open(self._folder, run_name, dict(config), first_step)
        self._opened.tracker.start()
        if self._opened.wants_config:
            self._opened.tracker.store_init_configuration(dict(config))
        return self._opened.last()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take figures of a step."""
        self._opened.tracker.log(dict(values), step=step)

    def finish(self, *, done: bool) -> None:
        """Write what is left."""
        if self._opened.end is None:
            self._opened.tracker.finish()
        else:
            self._opened.end(done)


def _tensorboard(folder: Path, run_name: str, _: _Config, first_step: int) -> _Opened:
    """Event files in a folder of the run's name."""
    from accelerate.tracking import TensorBoardTracker

    _wait_for_a_later_second(folder / run_name)
    # Readers leave out what an earlier file in the folder has from `purge_step` on.
    tracker = TensorBoardTracker(run_name, folder, purge_step=first_step)
    return _Opened(tracker, lambda: 0, wants_config=first_step == 1)


def _wait_for_a_later_second(run: Path) -> None:
    """Event files are read in the order of the seconds in their names (events.out.tfevents.N…)."""
    taken = {file.name.split(".")[3] for file in run.glob("events.out.tfevents.*")}
    while str(int(time.time())) in taken:
        time.sleep(0.02)


def _wandb(folder: Path, run_name: str, config: _Config, _: int) -> _Opened:
    """A run at Weights & Biases; in a folder, for `wandb sync`, if nobody is logged in."""
    from accelerate.tracking import WandBTracker

    wandb = import_module("wandb")
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(**_WANDB_SETTINGS)
    wandb.setup(settings=settings)
    # A login is never asked for; None is W&B's own choice.
    chosen = os.environ.get("WANDB_MODE") in {"offline", "disabled"}
    mode = None if chosen or wandb.login(prompt=False, verify=False) else "offline"
    tracker = WandBTracker(
        PROJECT,
        name=run_name,
        id=run_name,
        resume="allow",
        dir=str(folder),
        mode=mode,
        config=config,
        settings=settings,
    )
    return _Opened(
        tracker,
        lambda: max(0, tracker.run.step - 1),  # its next step, which is 0 for a new run
        end=lambda done: tracker.run.finish(exit_code=0 if done else 1),
    )


def _mlflow(folder: Path, run_name: str, _: _Config, __: int) -> _Opened:
    """A run of MLflow, on the user's server if one is set, else in a database in the folder."""
    from accelerate.tracking import MLflowTracker

    for key, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(key, value)  # the user's own go first
    mlflow = import_module("mlflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    place = None
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        folder.mkdir(parents=True, exist_ok=True)
        place = (folder / "artifacts").absolute().as_uri()
        mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').absolute()}")
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(PROJECT)
    experiment = (
        known.experiment_id if known else client.create_experiment(PROJECT, artifact_location=place)
    )
    runs = client.search_runs([experiment], f"tags.`gapmend.run` = '{run_name}'")
    # Made through the client: `mlflow.start_run` would add the user and the program's path.
    tags = {"gapmend.run": run_name}
    run = runs[0] if runs else client.create_run(experiment, run_name=run_name, tags=tags)
    names = list(run.data.metrics)
    histories = [client.get_metric_history(run.info.run_id, name) for name in names]
    last = max((one.step for history in histories for one in history), default=0)
    return _Opened(
        MLflowTracker(PROJECT, place, run_id=run.info.run_id),
        lambda: last,
        wants_config=not runs,
        end=lambda done: mlflow.end_run("FINISHED" if done else "FAILED"),
    )


def _trackio(_: Path, run_name: str, config: _Config, __: int) -> _Opened:
    """A run of Trackio, where Trackio keeps its runs: `trackio show` finds it."""
    from accelerate.tracking import TrackioTracker

    tracker = TrackioTracker(
        PROJECT,
        name=run_name,
        resume="allow",
        config=config,
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    trackio = import_module("trackio")
    return _Opened(
        tracker,
        # Nothing public says where a resumed run stands.
        lambda: max(0, getattr(tracker.run, "_next_step", 0) - 1),
        # The run's own way would say goodbye once more at exit, on stdout.
        end=lambda _: trackio.finish(),
    )


_OPEN: dict[TrackerName, Callable[[Path, str, _Config, int], _Opened]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}


class Tracker(Protocol):
    """What follows one run."""

    def start(self, run_name: str, config: Mapping[str, Shown], *, first_step: int) -> int:
        """Open the run, or go on with the one of this name.

        Args:
            run_name: the same after an interruption.
            config: what to show of how the run is made.
            first_step: the first that will be logged; more than 1 after an interruption.

        Returns:
            The last step that it has and would show twice; 0 if there is none.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take figures of a step; steps come in order."""

    def finish(self, *, done: bool) -> None:
        """Write what is left; `done` is false for a run that failed or was interrupted."""
