"""What a running stage says of itself: `progress.json` in its folder, from beginning to end.

Who looks at it opens no catalog and takes no lock, so the run isn't disturbed.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipeline.workspace.bars import Bar

PROGRESS = "progress.json"


@dataclass(frozen=True)
class Counted:
    """What a stage is doing, as its bar counts it.

    Attributes:
        label: the bar's.
        done: of what is counted.
        total: of it; None where that isn't known.
        first: how many were done at `began`.
        began: when counting began, in seconds since 1970.
        note: what is said beside the bar.
        unit: of what is counted, such as rows; empty where that has no name.
    """

    label: str
    done: int
    total: int | None
    first: int
    began: float
    note: str
    unit: str = ""


@dataclass(frozen=True)
class Told:
    """The file's contents.

    Attributes:
        stage: its name.
        about: the name in its inputs, such as a dataset's.
        run_id: under which it will be recorded.
        host: the machine's name.
        pid: of the process.
        process_began: when that began, in seconds since 1970; a number alone is given again.
        began: when the stage began in this process, likewise.
        interrupted: whether it was, while the process itself lives on, as in a notebook.
        doing: None between two bars.
    """

    stage: str
    about: str | None
    run_id: str
    host: str
    pid: int
    process_began: float
    began: float
    interrupted: bool = False
    doing: Counted | None = None


class ProgressFile:
    """Writes the file of one stage."""

    def __init__(self, workdir: Path, told: Told) -> None:
        """Write it for the first time."""
        self._path = workdir / PROGRESS
        self._told = told
        self._open: list[Bar] = []
        self._write(told)

    @contextmanager
    def telling(self, bar: Bar) -> Iterator[Callable[[], None]]:
        """Tell a bar while the body runs; gives what is to be called now and then."""
        self._open.append(bar)
        try:
            yield partial(self._tell, bar)
        finally:
            self._open.remove(bar)
            if not self._open and self._told.doing is not None:
                self._write(replace(self._told, doing=None))

    def _tell(self, bar: Bar) -> None:
        """Write what a bar counts, unless nothing has changed, or another is open inside it."""
        if self._open[-1:] != [bar]:
            return
        began = time.time() - bar.seconds
        now = Counted(
            bar.label, bar.done, bar.total, bar.first, round(began, 1), bar.noted, bar.unit
        )
        was = self._told.doing
        if was is None or replace(now, began=was.began) != was or now.first != was.first:
            self._write(replace(self._told, doing=now))

    def interrupted(self) -> None:
        """Say that the stage won't go on in this process."""
        self._write(replace(self._told, interrupted=True))

    def remove(self) -> None:
        """Take it away: the stage is recorded, or was refused."""
        self._path.unlink(missing_ok=True)

    def _write(self, told: Told) -> None:
        """Write it at once; a full disk is said where the stage's own work meets it."""
        self._told = told
        draft = self._path.with_suffix(".tmp")
        with suppress(OSError):
            draft.write_text(json.dumps(asdict(told)), encoding="utf-8")
            draft.replace(self._path)


@contextmanager
def told_of(workdir: Path, stage: str, about: str | None, run_id: str) -> Iterator[ProgressFile]:
    """Keep the file of a stage while the body runs; it stays where the body is interrupted."""
    import psutil

    process = psutil.Process()
    told = Told(
        stage, about, run_id, platform.node(), os.getpid(), process.create_time(), time.time()
    )
    file = ProgressFile(workdir, told)
    try:
        yield file
    except Exception:
        file.remove()
        raise
    except BaseException:
        file.interrupted()
        raise
    file.remove()
