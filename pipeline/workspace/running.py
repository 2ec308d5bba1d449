"""The stages that have begun in a workspace and not ended, from the files they keep. Nothing waits.

Who follows a training has its steps so far in `metrics.jsonl`, in the same folder.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pipeline.workspace.durations import time_left
from pipeline.workspace.progress_file import PROGRESS, Told

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workspace.store import WorkspaceStore

_SAME_S = 2.0  # two readings of when a process began: a clock that is set moves them


@dataclass(frozen=True)
class Running:
    """A stage that has begun and not ended.

    Attributes:
        stage: its name.
        state: "running"; "stopped" where its process is gone or was interrupted, and its folder
            kept; "not known" where it began on another machine, or its file can't be read.
        why: of a state that isn't "running", in words, with what the next call does.
        workdir: its folder.
        about: what of: a dataset's name, say; None where its inputs name nothing.
        run_id: under which it will be recorded; None where that can't be read, as all below.
        since: when it began in this process.
        pid: of its process.
        host: the machine's name.
        doing: what it is at.
        done: how far it has come with that: steps, items, rows.
        total: of how many; None where that isn't known.
        unit: of what: rows, bytes; empty where it has no name.
        note: beside it: loss and tokens per second of a training.
        seconds_left: of what it is at, at the pace so far; None where that can't be said.
    """

    stage: str
    state: Literal["running", "stopped", "not known"]
    why: str
    workdir: Path
    about: str | None = None
    run_id: str | None = None
    since: datetime | None = None
    pid: int | None = None
    host: str | None = None
    doing: str | None = None
    done: int | None = None
    total: int | None = None
    unit: str = ""
    note: str = ""
    seconds_left: float | None = None


def running(ws: WorkspaceStore) -> tuple[Running, ...]:
    """Return the stages that have begun and not ended, those that run first, then by their time.

    A stage inside another one, such as a dataset that `select` takes in, is one of its own.
    """
    found = (_read(file) for file in sorted((ws.state / "work").glob(f"*/{PROGRESS}")))
    order = ("running", "not known", "stopped")
    never = datetime.max.replace(tzinfo=UTC)
    there = (one for one in found if one is not None)
    return tuple(sorted(there, key=lambda one: (order.index(one.state), one.since or never)))


def _read(file: Path) -> Running | None:
    """Return what a file says; None for one that went meanwhile: the stage has ended."""
    from pydantic import TypeAdapter

    try:
        told = TypeAdapter(Told).validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return _unreadable(file)
    now = time.time()
    state, why = _state(told)
    doing, left = told.doing, None
    if doing is not None and state == "running":
        seconds = now - doing.began
        left = time_left(doing.done, doing.total, first=doing.first, seconds=seconds)
    return Running(
        stage=told.stage,
        state=state,
        why=why,
        workdir=file.parent,
        about=told.about,
        run_id=told.run_id,
        since=datetime.fromtimestamp(told.began, UTC),
        pid=told.pid,
        host=told.host,
        doing=doing.label if doing else None,
        done=doing.done if doing else None,
        total=doing.total if doing else None,
        unit=doing.unit if doing else "",
        note=doing.note if doing else "",
        seconds_left=left,
    )


def _unreadable(file: Path) -> Running:
    why = f"work/{file.parent.name}/{file.name} can't be read; the next run writes it anew"
    stage = file.parent.name.rpartition("-")[0] or file.parent.name
    return Running(stage, "not known", why, file.parent)


def _state(told: Told) -> tuple[Literal["running", "stopped", "not known"], str]:
    if told.host != platform.node():
        return "not known", f"it was begun on {told.host}: look there whether it runs"
    goes_on = "the next run with the same inputs goes on from its folder"
    if told.interrupted:
        return "stopped", f"it was interrupted; {goes_on}"
    if not _lives(told.pid, told.process_began):
        return "stopped", f"process {told.pid} is gone, killed or with its machine; {goes_on}"
    return "running", ""


def _lives(pid: int, began: float) -> bool:
    """Whether the process of this number is the one that began then, and not dead but unburied."""
    import psutil

    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - began) < _SAME_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
