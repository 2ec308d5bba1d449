"""Run a program in this process and kill it (SIGKILL) at a chosen call, or list the calls.

    python launcher.py count FILE           PROGRAM [ARGS…]   one line a call into FILE
    python launcher.py kill KIND:NTH:WHEN   PROGRAM [ARGS…]   KIND fsync|rename|commit, NTH from 1,
                                                              WHEN before|after the call itself

PROGRAM is a Python file or `module:function`. Nothing in the program knows of this: `os.fsync`,
`os.rename`, `os.replace` and DuckDB's `execute("COMMIT")` are wrapped from outside.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

ROOT = Path(__file__).resolve().parents[3]
# What a bar says is written by the clock: how often isn't the same twice, and nothing hangs on it.
BY_THE_CLOCK = "pipeline/workspace/progress_file.py:"


class Recorder:
    """Appends each call to a file, so that a run shows what there is to hit."""

    def __init__(self, file: str) -> None:
        self._file = file

    def around(self, kind: str, call: Callable[[], Any]) -> Any:
        with Path(self._file).open("a", encoding="utf-8") as file:
            file.write(f"{kind}\t{_site()}\n")
        return call()


class Killer:
    """Ends this process at the n-th call of a kind, just before or just after it."""

    def __init__(self, point: str) -> None:
        self._kind, nth, self._when = point.split(":")
        self._left = int(nth)
        self._lock = threading.Lock()

    def around(self, kind: str, call: Callable[[], Any]) -> Any:
        if kind != self._kind:
            return call()
        with self._lock:
            self._left -= 1
            now = self._left == 0
        if now and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def _site() -> str:
    """Return where the call comes from: the two innermost frames of this project."""
    frame: FrameType | None = sys._getframe()
    found: list[str] = []
    while frame is not None and len(found) < 2:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path != Path(__file__) and ".venv" not in path.parts:
            found.append(f"{path.relative_to(ROOT)}:{frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def _patch(watcher: Recorder | Killer) -> None:
    for name, kind in (("fsync", "fsync"), ("rename", "rename"), ("replace", "rename")):
        original = getattr(os, name)

        def wrapped(*args: Any, _kind: str = kind, _original: Any = original, **kwargs: Any) -> Any:
            if _site().startswith(BY_THE_CLOCK):
                return _original(*args, **kwargs)
            return watcher.around(_kind, lambda: _original(*args, **kwargs))

        setattr(os, name, wrapped)
    execute = duckdb.DuckDBPyConnection.execute

    def committing(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(query, str) and query.strip().upper() == "COMMIT":
            return watcher.around("commit", lambda: execute(self, query, *args, **kwargs))
        return execute(self, query, *args, **kwargs)

    duckdb.DuckDBPyConnection.execute = committing  # type: ignore[method-assign]


def main() -> None:
    mode, what, program, *args = sys.argv[1:]
    _patch(Recorder(what) if mode == "count" else Killer(what))
    sys.argv = [program, *args]
    module, _, function = program.partition(":")
    if function:
        getattr(importlib.import_module(module), function)()
    else:
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
