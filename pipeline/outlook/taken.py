"""What a run took, stage by stage, beside what was foreseen: kept, so that the next one is known.

It is a run of its own in the catalog, `run`, made of no object and with no output.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from pipeline.outlook.cost import StageCost
from pipeline.workspace.stage import environment, hardware
from registry.store.hashing import digest
from registry.store.kinds import RunMeta

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.workspace.workspace import OpenWorkspace

STAGE = "run"
VERSION = 1


@dataclass(frozen=True)
class StageTaken:
    """A stage: what was foreseen at most, and what it took.

    The tokens taken are those that went through the base, padding and all, and those trained on.
    Memory is that of training alone, with the base's weights; disk is what the workspace grew by.
    """

    stage: str
    foreseen: StageCost
    taken: StageCost


@dataclass(frozen=True)
class CostReport:
    """How far off a forecast was.

    Attributes:
        stages: those that ran.
        rates: where the rates were from.
        run_id: of the record.
    """

    stages: tuple[StageTaken, ...]
    rates: str
    run_id: str

    @property
    def total(self) -> StageTaken:
        """All stages together."""
        foreseen = reduce(add, (one.foreseen for one in self.stages), StageCost())
        taken = reduce(add, (one.taken for one in self.stages), StageCost())
        return StageTaken("all", foreseen, taken)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values, with the total."""
        return {**asdict(self), "total": asdict(self.total)}


class Meter:
    """Measures what each stage takes, from one to the next."""

    def __init__(self, ws: OpenWorkspace, foreseen: Mapping[str, StageCost], rates: str) -> None:
        """Begin now.

        Args:
            ws: the workspace.
            foreseen: of each stage that is expected to run.
            rates: where the rates were from.
        """
        self._ws = ws
        self._foreseen = foreseen
        self._rates = rates
        self._stages: list[StageTaken] = []
        self._started = datetime.now(UTC)
        self._trained: set[str] = {run.id for run in self._trainings()}
        self._at = self._mark()

    def lap(self, stage: str) -> None:
        """Count what was taken since the last stage for this one."""
        before, self._at = self._at, self._mark()
        new = [run for run in self._trainings() if run.id not in self._trained]
        self._trained |= {run.id for run in new}
        if stage not in self._foreseen:
            return
        taken = StageCost(
            scored=self._at.read - before.read,
            trained=sum(int(run.meta.result["tokens"]) for run in new),
            seconds=round(self._at.clock - before.clock, 3),
            memory=max((int(run.meta.result["memory"]) for run in new), default=0),
            disk=self._at.disk - before.disk,
        )
        self._stages.append(StageTaken(stage, self._foreseen[stage], taken))

    def record(self) -> CostReport | None:
        """Keep what was measured, and return it; None where no stage ran that was foreseen."""
        if not self._stages:
            return None
        began, ended = self._started.isoformat(), datetime.now(UTC)
        names = [one.stage for one in self._stages]
        key = digest({"stage": STAGE, "began": began})
        run_id = digest({"kind": "run", "identity": {"stage": STAGE, "key": key}})
        report = CostReport(tuple(self._stages), self._rates, run_id)
        meta = RunMeta(
            stage=STAGE,
            key=key,
            status="done",
            started_at=began,
            ended_at=ended.isoformat(),
            seconds=round((ended - self._started).total_seconds(), 3),
            code_version=VERSION,
            inputs={"stages": names},
            result=report.as_json(),
            environment=environment(),
            hardware=hardware(),
        )
        store, identity = self._ws.store, {"stage": STAGE, "key": key}
        self._ws.catalog.commit([store.put("run", None, identity=identity, meta=meta)])
        return report

    def _trainings(self) -> list[Any]:
        return self._ws.catalog.committed(RunMeta, stage="train", status="done")

    def _mark(self) -> _Mark:
        return _Mark(time.monotonic(), self._ws.models.tokens_read, _bytes_in(self._ws.state))


@dataclass(frozen=True)
class _Mark:
    clock: float
    read: int
    disk: int


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process's draft
            total += path.stat().st_size if path.is_file() else 0
    return total
