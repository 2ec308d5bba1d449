"""gc: remove what nothing refers to and what erased rows may have left a trace in.

Nothing that was acknowledged goes. What a killed run would have gone on from goes too: the look,
which comes first, says which run would begin anew.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from evals.engine.journal import FOLDER as JOURNALS
from registry.upkeep.erase import erase_again, erasing
from registry.upkeep.gc import Waste, find_waste, relative, remove_waste, size_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workspace.store import WorkspaceStore
    from pipeline.workspace.ui import Ui

WORK = "work"
INGEST_LOCK = "ingest.lock"
FAULT_LOG = "fault.log"


@dataclass(frozen=True)
class GcReport:
    """What can go, or went.

    Attributes:
        removed: whether it went; otherwise this is the look before.
        found: the things.
        running: stages that are running: their folders are kept, and all journals, caches and
            objects that they may be about to commit or to read.
        redacted: objects that erased rows were taken out of a second time, as a stage that had
            read them before the erasure wrote them after it.
    """

    removed: bool
    found: tuple[Waste, ...]
    running: tuple[str, ...]
    redacted: int

    @property
    def bytes(self) -> int:
        """Return how many bytes the things have."""
        return sum(one.bytes for one in self.found)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "removed": self.removed,
            "bytes": self.bytes,
            "found": self.found,
            "running": list(self.running),
            "redacted": self.redacted,
        }


def gc(ws: WorkspaceStore, ui: Ui, *, remove: bool) -> GcReport:
    """Look for what can go and, with `remove`, remove it.

    Raises:
        UserError: another process erases or collects, or the catalog is open in another program.
    """
    if not remove:
        busy = running(ws.state)
        return GcReport(removed=False, found=_look(ws, ui, busy), running=busy, redacted=0)
    with erasing(ws.state):
        busy = running(ws.state)
        redacted = erase_again(ws.store, ws.catalog)
        found = _look(ws, ui, busy)
        ours = [one for one in found if one.what == "workdir"]
        others = [one for one in found if one.what != "workdir"]
        with ui.progress("gc · remove", len(found), "things", brief=True) as bar:
            gone = remove_waste(ws.store, ws.catalog, others, bar.advance)
            for one in ours:
                with ExitStack() as locks:
                    # A run that has begun meanwhile keeps its folder.
                    if _taken(ws.state / one.path, locks):
                        gone += remove_waste(ws.store, ws.catalog, [one], bar.advance)
        went = tuple(one for one in found if one in gone)
        return GcReport(removed=True, found=went, running=busy, redacted=redacted)


def running(state: Path) -> tuple[str, ...]:
    """Return the names of the stages that are running in a workspace now."""
    found = []
    for lock in sorted((state / WORK).glob("*.lock")):
        with ExitStack() as locks:
            if not _taken(lock, locks):
                found.append(lock.stem)
    if (state / INGEST_LOCK).exists():
        with ExitStack() as locks:
            if not _taken(state / INGEST_LOCK, locks):
                found.append("ingest")
    return tuple(found)


def _look(ws: WorkspaceStore, ui: Ui, busy: tuple[str, ...]) -> tuple[Waste, ...]:
    total = sum(1 for _ in ws.store.folders())
    with ui.progress("gc", total, "objects", brief=True) as bar:
        found = find_waste(ws.store, ws.catalog, busy=bool(busy), advance=bar.advance)
    for folder in sorted((ws.state / WORK).glob("*")):
        if folder.is_dir() and folder.name not in busy:
            found.append(_thing(ws, "workdir", folder, _fate(ws, folder)))
    if not busy:
        found += [
            _thing(ws, "journal", path, "answers of a killed evaluation: it would ask again")
            for path in sorted((ws.state / JOURNALS).glob("*"))
        ]
    if (log := ws.state / FAULT_LOG).is_file():
        found.append(_thing(ws, "log", log, "the last fault's traceback"))
    return tuple(found)


def _thing(ws: WorkspaceStore, what: Any, path: Path, detail: str) -> Waste:
    return Waste(what, relative(path, ws.store), size_of(path), detail)


def _fate(ws: WorkspaceStore, folder: Path) -> str:
    """Say of a run's folder whether the run is done; its name has the first digits of the key."""
    from registry.store.kinds import RunMeta

    stage, _, digits = folder.name.rpartition("-")
    done = any(
        run.meta.done and run.meta.key.startswith(digits)
        for run in ws.catalog.each(RunMeta)
        if run.meta.stage == stage
    )
    return "the run is done" if done else f"of a killed run of {stage}: it would begin anew"


def _taken(path: Path, locks: ExitStack) -> bool:
    """Take the lock of a run's folder, or the lock file itself, if nobody has it."""
    lock = path if path.suffix == ".lock" else path.with_suffix(".lock")
    try:
        locks.enter_context(FileLock(lock, timeout=0))
    except Timeout:
        return False
    return True
