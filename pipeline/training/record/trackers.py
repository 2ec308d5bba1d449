"""A training's figures to trackers that the user names: TensorBoard, Weights & Biases, and so on.

They only watch: none is needed, none decides anything, and one that fails is dropped. The record of
a run is in the catalog (the view `run_metrics`). They are accelerate's (`tracker_kinds.py`) and get
what this guard lets through. A package is imported only if it is named.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from pipeline.training.record.tracker_kinds import AccelerateTracker, Shown, Tracker
from registry.errors import MachineError
from registry.store.paths import SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from pipeline.spec.train import TrackerName


_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # a folder, an id, a value in a filter
_PATH = re.compile(r"(?:^|[\s='\"(\[,;])(?:[/~]|[A-Za-z]:[\\/]|\\\\|file:)")
_SHORTEST_SECRET = 8


class Trackers:
    """Several trackers as one, to be used in a `with`; no error of theirs gets out of it."""

    def __init__(
        self,
        trackers: Mapping[TrackerName, Tracker],
        run_name: str,
        config: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        if not _RUN_NAME.fullmatch(run_name):
            raise ValueError(f"a run's name is letters, digits, '.', '_' and '-', not {run_name!r}")
        self._used = dict(trackers)
        self._run_name = run_name
        self._config = public_config(config) if trackers else {}
        self._say = say
        self._has: dict[str, int] = {}  # tracker -> the last step that it was left with

    def begin(self, first_step: int) -> None:
        """Open all, before the step (from 1) that will be logged first."""

        def start(name: TrackerName, tracker: Tracker) -> None:
            self._has[name] = tracker.start(self._run_name, self._config, first_step=first_step)

        self._each(start)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell all of figures measured at a step; a tracker that has the step already keeps its."""
        if self._used.keys() - self._has.keys():
            raise RuntimeError("begin comes before log")

        def tell(name: TrackerName, tracker: Tracker) -> None:
            if step > self._has[name]:
                tracker.log(step, values)

        self._each(tell)

    def __enter__(self) -> Self:
        """Nothing is opened before `begin`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish those that were opened."""
        opened = {name: tracker for name, tracker in self._used.items() if name in self._has}
        self._used = opened
        self._each(lambda _, tracker: tracker.finish(done=kind is None))

    def _each(self, act: Callable[[TrackerName, Tracker], None]) -> None:
        for name, tracker in list(self._used.items()):
            try:
                with redirect_stdout(sys.stderr):  # stdout is for results
                    act(name, tracker)
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
                del self._used[name]
                self._say(
                    f"the tracker '{name}' failed and is left out for the rest of this run "
                    f"({_told(error)})"
                )


def open_trackers(
    names: Sequence[TrackerName],
    folder: Path,
    run_name: str,
    config: Mapping[str, Any],
    *,
    say: Callable[[str], None],
) -> Trackers:
    """Make the trackers of a run; see `Trackers.begin`.

    Args:
        names: which; none is fine.
        folder: for those that write files here.
        run_name: of letters, digits, '.', '_' and '-'; the same name is the same run.
        config: how the run is made; paths and secrets in it are left out.
        say: is told, in one line, of a tracker that fails.

    Raises:
        UserError: one whose package is not installed.
    """
    for name in names:
        _require(name)
    made = {name: AccelerateTracker(name, folder / name) for name in names}
    return Trackers(made, run_name, config, say)


def _require(name: TrackerName) -> None:
    """Check that a tracker's package is there, without importing it."""
    modules: list[str] = [name]
    if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        modules.append("sqlalchemy")  # which mlflow-skinny leaves out
    if any(find_spec(module) is None for module in modules):
        raise MachineError(
            f"the package of the tracker '{name}' is not installed",
            where="train.trackers",
            fix=f"install it with: pip install {name}; or take {name} out of the list",
        )


def public_config(config: Mapping[str, Any]) -> dict[str, Shown]:
    """The entries of a nested config by dotted keys, without paths of this machine and secrets."""
    from registry.publish.secrets import scan_lines

    shown = dict(_flat(config))
    lines = [f"{key}: {value}" for key, value in shown.items()]
    found = scan_lines("config", iter(enumerate(lines)), _secrets())
    private = {finding.line for finding in found}
    return {
        key: value
        for number, (key, value) in enumerate(shown.items())
        if number not in private and not (isinstance(value, str) and _is_private(key, value))
    }


def _is_private(key: str, value: str) -> bool:
    return bool(SECRET_NAME.search(key) or _PATH.search(value))


def _flat(config: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Shown]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{at}{key}", ", ".join(map(str, value))
        elif isinstance(value, str | int | float):
            yield f"{at}{key}", value
        elif value is not None:
            yield f"{at}{key}", str(value)


def _secrets() -> list[str]:
    """The values of environment variables whose names say that they are secret."""
    return [
        value
        for key, value in os.environ.items()
        if SECRET_NAME.search(key) and len(value) >= _SHORTEST_SECRET
    ]


def _told(error: Exception) -> str:
    """An error in one line, without its text if there is a secret in it."""
    from registry.publish.secrets import scan_lines

    kind = type(error).__name__
    text = " ".join(str(error).split())[:300]
    found = scan_lines("error.parquet", iter([(1, text)]), _secrets())  # as rows: paths may stay
    return kind if not text or any(found) else f"{kind}: {text}"
