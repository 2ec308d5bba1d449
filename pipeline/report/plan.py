"""What a run would do, and what it will take."""

from __future__ import annotations

import shutil
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from pipeline.outlook.cost import StageCost
from pipeline.report.tables import in_bytes, table
from pipeline.workspace.durations import in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from pipeline.workspace.stage import PlanStep
    from pipeline.workspace.workspace import OpenWorkspace


def plan_table(steps: Sequence[PlanStep]) -> Table:
    """Return what would run and what is up to date, why, and what it takes."""
    rows = [(*step.cells(), cost_text(step.cost) if step.cost else "") for step in steps]
    return table("plan", ("stage", "about", "state", "why", "takes about"), rows)


def cost_lines(ws: OpenWorkspace, costs: Sequence[StageCost], rates: str) -> Iterator[str]:
    """Yield what stages take together, and what of it this machine hasn't got."""
    import psutil

    whole = reduce(add, costs, StageCost())
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(ws.root).free
    yield (
        f"it will take about {cost_text(whole)} at most ({rates}), {in_bytes(whole.memory)} of "
        f"{in_bytes(memory)} memory free, and {in_bytes(whole.disk)} of {in_bytes(disk)} disk free"
    )
    if whole.memory > memory:
        yield (
            "there may not be memory enough: lower train.batch_tokens, set "
            "train.activation_checkpointing: true, or take a smaller base"
        )
    if whole.disk > disk:
        yield f"there may not be disk enough at {ws.root}: free some, or move the workspace"


def cost_text(cost: StageCost) -> str:
    """Return tokens and time of a cost."""
    tokens = [
        f"{_rounded(count):,} tokens {what}"
        for count, what in ((cost.scored, "scored"), (cost.trained, "trained"))
        if count
    ]
    return ", ".join([*tokens, in_time(cost.seconds)] if tokens else [])


def _rounded(count: int) -> int:
    """Return a number with two digits that mean something."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return round(count / unit) * unit
