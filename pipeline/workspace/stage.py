"""Stages: pure steps from recorded inputs to recorded outputs.

Its key is a digest of the stage's name, the version of its code and its inputs. A key that has
run before is a cache hit; one that was killed finds its `workdir` as it left it and goes on.
Outputs and the run are acknowledged together, in one transaction of the catalog.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from filelock import FileLock, Timeout

from pipeline.workspace.progress_file import told_of
from registry.errors import GapmendError, StoreRequestError, UserError
from registry.store.hashing import canonical_json, digest
from registry.store.kinds import Output, RunMeta
from registry.store.locks import rows_stay
from registry.store.read_back import read_back

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pipeline.workspace.store import WorkspaceStore
    from pipeline.workspace.ui import Ui
    from registry.store.objects import ObjectRef, Parent

Report = TypeVar("Report")

_NAMED = 3  # changed keys that a reason names
_PACKAGES = ("torch", "transformers", "peft", "lm_eval", "vllm", "duckdb", "polars", "numpy")


class WouldRunError(GapmendError):
    """In a dry workspace: this stage has not run on these inputs, and `why` says what changed."""

    def __init__(self, stage: str, why: str) -> None:
        """Name the stage and the reason."""
        self.stage = stage
        self.why = why
        super().__init__(f"{stage} would run: {why}")


@dataclass(frozen=True)
class StageContext:
    """What a stage's work is given."""

    run_id: str
    workdir: Path  # survives a kill; removed once the run is acknowledged
    ui: Ui


@dataclass(frozen=True)
class StageOutput:
    """What a stage's work returns: a JSON result, and (role, object) for each output."""

    result: dict[str, Any]
    outputs: Sequence[tuple[str, ObjectRef]] = ()


@dataclass(frozen=True)
class StageOutcome:
    """What is known of a stage that is done, whether now or earlier (`cached`)."""

    run_id: str
    key: str
    cached: bool
    seconds: float
    result: dict[str, Any]
    outputs: Mapping[str, str] = field(default_factory=dict)  # role -> object id

    def report(self, kind: type[Report], **known: object) -> Report:
        """Return the result as a report: with `known`, and what every outcome says of its run.

        Raises:
            StoreError: the run's record isn't what the report is made of.
        """
        about = {"run_id": self.run_id, "cached": self.cached, "seconds": self.seconds}
        return read_back(kind, {**self.result, **known, **about}, f"run {self.run_id[:12]}")


def stage_key(stage: str, inputs: Mapping[str, Any], *, version: int) -> str:
    """Return the digest that decides whether this stage has run on these inputs."""
    return digest({"stage": stage, "version": version, "inputs": dict(inputs)})


def find_outcome(ws: WorkspaceStore, stage: str, key: str) -> StageOutcome | None:
    """Return the acknowledged run of `stage` under `key`, if there is one."""
    manifest = ws.catalog.find_run(stage, key)
    if manifest is None:
        return None
    meta = manifest.meta
    outputs = {output.role: output.id for output in meta.outputs}
    return StageOutcome(
        manifest.id,
        key,
        cached=True,
        seconds=meta.seconds,
        result=meta.result,
        outputs=outputs,
    )


def run_stage(  # noqa: PLR0913 - what a run's record is made of
    ws: WorkspaceStore,
    ui: Ui,
    stage: str,
    inputs: Mapping[str, Any],
    work: Callable[[StageContext], StageOutput],
    *,
    version: int,
    parents: Sequence[Parent] = (),
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> StageOutcome:
    """Run `work` once for these inputs, or return what it gave before.

    Args:
        ws: the workspace that records the run.
        ui: where progress is shown.
        stage: the stage's name.
        inputs: JSON values that decide the outcome; their digest is the key.
        work: does the work and puts its objects in the store, uncommitted.
        version: of the stage's code; raised when the same inputs would give another outcome.
        parents: the input objects, for the lineage.
        config: the part of the spec that applied, for the record.
        seed: for the record.

    Raises:
        UserError: another process is running the same stage on the same inputs, or erases rows.
    """
    key = stage_key(stage, inputs, version=version)
    if done := find_outcome(ws, stage, key):
        return done
    if ws.dry:
        raise WouldRunError(stage, why_not_cached(ws, stage, inputs, version=version))
    workdir = ws.state / "work" / f"{stage}-{key[:16]}"
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(workdir.with_suffix(".lock"), timeout=0):
            if done := find_outcome(ws, stage, key):
                return done
            record = _Record(ws, stage, key, version, dict(inputs), dict(config or {}), seed)
            with (
                rows_stay(ws.state, ws.catalog.wait_s),
                ws.catalog.together(),
                told_of(workdir, stage, inputs.get("name"), record.run_id) as file,
                ui.stage(stage, file) as told,
            ):
                outcome = _run_and_record(record, work, workdir, told, parents)
            shutil.rmtree(workdir, ignore_errors=True)
            return outcome
    except Timeout:
        raise StoreRequestError(
            f"another process is running the stage '{stage}' on the same inputs",
            where=str(workdir),
            fix="wait for it; its result will be used here too",
        ) from None


@dataclass(frozen=True)
class _Record:
    """The parts of a run's manifest that are known before it ends."""

    ws: WorkspaceStore
    stage: str
    key: str
    version: int
    inputs: dict[str, Any]
    config: dict[str, Any]
    seed: int | None

    @property
    def identity(self) -> dict[str, Any]:
        return {"stage": self.stage, "key": self.key}

    @property
    def run_id(self) -> str:
        return digest({"kind": "run", "identity": self.identity})

    def put(
        self,
        status: Literal["done", "failed"],
        began: datetime,
        output: StageOutput,
        parents: Sequence[Parent],
    ) -> ObjectRef:
        ended = datetime.now(UTC)
        done = status == "done"
        identity = self.identity if done else {**self.identity, "attempt": ended.isoformat()}
        meta = RunMeta(
            stage=self.stage,
            key=self.key,
            status=status,
            started_at=began.isoformat(),
            ended_at=ended.isoformat(),
            seconds=round((ended - began).total_seconds(), 3),
            code_version=self.version,
            inputs=self.inputs,
            config=self.config,
            seed=self.seed,
            result=output.result,
            outputs=tuple(
                Output(role=role, kind=ref.kind, id=ref.id) for role, ref in output.outputs
            ),
            environment=environment(),
            hardware=hardware(),
        )
        return self.ws.store.put("run", None, identity=identity, parents=parents, meta=meta)


def _run_and_record(
    record: _Record,
    work: Callable[[StageContext], StageOutput],
    workdir: Path,
    ui: Ui,
    parents: Sequence[Parent],
) -> StageOutcome:
    """Do the work and acknowledge it; a failure that is not the user's is recorded too."""
    began = datetime.now(UTC)
    clock = time.monotonic()
    try:
        output = work(StageContext(record.run_id, workdir, ui))
    except UserError:
        raise
    except (GapmendError, ArithmeticError, RuntimeError) as error:
        failed = StageOutput({"error": f"{type(error).__name__}: {error}"})
        record.ws.catalog.commit([record.put("failed", began, failed, parents)])
        raise
    run = record.put("done", began, output, parents)
    record.ws.catalog.commit([*(ref for _, ref in output.outputs), run])
    outputs = {role: ref.id for role, ref in output.outputs}
    seconds = time.monotonic() - clock
    return StageOutcome(
        run.id, record.key, cached=False, seconds=seconds, result=output.result, outputs=outputs
    )


def why_not_cached(
    ws: WorkspaceStore, stage: str, inputs: Mapping[str, Any], *, version: int
) -> str:
    """Return what differs from the latest run of this stage about the same thing."""
    name = inputs.get("name")
    runs = [
        run.meta
        for run in ws.catalog.committed(RunMeta, stage=stage)
        if run.meta.inputs.get("name") == name
    ]
    done = [meta for meta in runs if meta.done]
    if not done:
        return "the last attempt failed" if runs else "has not run yet"
    last = done[-1]
    if last.code_version != version:
        return f"gapmend's own code of this stage changed (version {version})"
    changed = _changed(last.inputs, json_form(inputs))
    return "changed: " + ", ".join(changed[:_NAMED]) if changed else "its inputs changed"


def _changed(before: Any, now: Any, at: str = "") -> list[str]:
    """Return the dotted keys at which two JSON values differ."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [at]
    found: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        found += _changed(before.get(key), now.get(key), f"{at}.{key}" if at else str(key))
    return found


def json_form(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` as it reads back from JSON, so that tuples equal the lists they become."""
    return dict(json.loads(canonical_json(dict(value))))


def environment() -> dict[str, Any]:
    """Return the software a run ran on: Python, platform and the packages that decide results."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": dict(_packages()),
    }


@functools.cache  # to parse what pip noted of eight packages takes 50 ms
def _packages() -> tuple[tuple[str, str], ...]:
    from importlib.metadata import PackageNotFoundError, version

    found: list[tuple[str, str]] = []
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def hardware() -> dict[str, Any]:
    """Return the machine a run ran on: processor, cores, memory in bytes."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {"cpu": platform.machine(), "cores": os.cpu_count(), "ram_bytes": pages * page}


@dataclass(frozen=True)
class FinishedStage:
    """One stage of the loop that has its report, from now or from the cache."""

    stage: str
    about: str
    report: Any


@dataclass(frozen=True)
class PlanStep:
    """One line of a plan."""

    stage: str
    about: str
    state: str  # `up to date`, `would run` or `after the above`
    why: str
    cost: Any = None  # what it is expected to take, where that is known: a StageCost

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells."""
        return (self.stage, self.about, self.state, self.why)
