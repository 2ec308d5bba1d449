"""The packages behind the trackers of `trackers.py`, each imported when its run starts."""

from __future__ import annotations

import logging
import os
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pipeline.training.trackers import Shown, Tracker, TrackerName

PROJECT = "gapmend"

_WANDB_WAIT_S = 30  # for a server that doesn't answer, before the first step
# It counts its users, and tries a server that doesn't answer for minutes.
_MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_MLFLOW_EVERY_S = 1.0  # a write to its database takes tens of milliseconds
_MLFLOW_AT_ONCE = 1000  # figures in one call; it takes no more


class _TensorBoard:
    """Event files in a folder of the run's name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, run_name: str, config: Mapping[str, Shown], *, first_step: int) -> int:
        from torch.utils.tensorboard import SummaryWriter

        run = self._folder / run_name
        _wait_for_a_later_second(run)
        # Readers leave out what an earlier file in the folder has from `purge_step` on.
        self._writer = SummaryWriter(str(run), purge_step=first_step)
        if first_step == 1:
            lines = [f"    {key}: {value}" for key, value in config.items()]
            self._writer.add_text("config", "\n".join(lines), 0)
        return 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a kill loses nothing

    def finish(self, *, done: bool) -> None:
        del done
        self._writer.close()


def _wait_for_a_later_second(run: Path) -> None:
    """Event files are read in the order of the seconds in their names (events.out.tfevents.N…)."""
    taken = {file.name.split(".")[3] for file in run.glob("events.out.tfevents.*")}
    while str(int(time.time())) in taken:
        time.sleep(0.02)


class _Wandb:
    """A run at Weights & Biases; in a folder, for `wandb sync`, if nobody is logged in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, run_name: str, config: Mapping[str, Shown], *, first_step: int) -> int:
        del first_step
        wandb = import_module("wandb")
        self._folder.mkdir(parents=True, exist_ok=True)
        # Figures and config are sent, and nothing of the machine.
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            host="",
            init_timeout=_WANDB_WAIT_S,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        wandb.setup(settings=settings)
        self._run = wandb.init(
            project=PROJECT,
            name=run_name,
            id=run_name,
            resume="allow",
            dir=str(self._folder),
            mode=self._mode(wandb.login),
            config=dict(config),
            settings=settings,
        )
        return max(0, self._run.step - 1)  # its next step, which is 0 for a new run

    def _mode(self, login: Callable[..., bool]) -> str | None:
        """Offline unless there is a login, which is never asked for; None is its own choice."""
        if os.environ.get("WANDB_MODE") in {"offline", "disabled"}:
            return None
        return None if login(prompt=False, verify=False) else "offline"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class _Mlflow:
    """A run of MLflow, on the user's server if one is set, else in a database in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def start(self, run_name: str, config: Mapping[str, Shown], *, first_step: int) -> int:
        del first_step
        for key, value in _MLFLOW_DEFAULTS.items():
            os.environ.setdefault(key, value)  # the user's own go first
        self._entities = import_module("mlflow.entities")
        experiment = self._experiment()
        runs = self._client.search_runs([experiment], f"tags.`gapmend.run` = '{run_name}'")
        if runs:
            self._run_id = runs[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return self._last_step(list(runs[0].data.metrics))
        # Through the client: `mlflow.start_run` would add the user and the program's path.
        tags = {"gapmend.run": run_name}
        made = self._client.create_run(experiment, run_name=run_name, tags=tags)
        self._run_id = made.info.run_id
        params = [self._entities.Param(key, str(value)) for key, value in config.items()]
        self._client.log_batch(self._run_id, params=params)
        return 0

    def _experiment(self) -> str:
        mlflow = import_module("mlflow")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        place = None
        if os.environ.get("MLFLOW_TRACKING_URI"):
            self._client = mlflow.MlflowClient()
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            place = (self._folder / "artifacts").absolute().as_uri()
            uri = f"sqlite:///{(self._folder / 'mlflow.db').absolute()}"
            self._client = mlflow.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(PROJECT)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(PROJECT, artifact_location=place))

    def _last_step(self, names: Sequence[str]) -> int:
        histories = (self._client.get_metric_history(self._run_id, name) for name in names)
        return max((one.step for history in histories for one in history), default=0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metric = self._entities.Metric
        self._waiting += [metric(name, value, now, step) for name, value in values.items()]
        if time.monotonic() - self._sent >= _MLFLOW_EVERY_S:
            self._send()

    def _send(self) -> None:
        for begin in range(0, len(self._waiting), _MLFLOW_AT_ONCE):
            part = self._waiting[begin : begin + _MLFLOW_AT_ONCE]
            self._client.log_batch(self._run_id, metrics=part)
        self._waiting = []
        self._sent = time.monotonic()

    def finish(self, *, done: bool) -> None:
        self._send()
        self._client.set_terminated(self._run_id, status="FINISHED" if done else "FAILED")


class _Trackio:
    """A run of Trackio, where Trackio keeps its runs: `trackio show` finds it."""

    def __init__(self, folder: Path) -> None:
        del folder

    def start(self, run_name: str, config: Mapping[str, Shown], *, first_step: int) -> int:
        del first_step
        self._trackio = import_module("trackio")
        self._run = self._trackio.init(
            project=PROJECT,
            name=run_name,
            resume="allow",
            config=dict(config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        # Nothing public says where a resumed run stands.
        return max(0, getattr(self._run, "_next_step", 0) - 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, done: bool) -> None:
        del done
        self._trackio.finish()  # the run's own would say goodbye once more at exit, on stdout


KINDS: dict[TrackerName, Callable[[Path], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
    "trackio": _Trackio,
}
