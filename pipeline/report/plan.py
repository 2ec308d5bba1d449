"""What a run would do, and what it will take."""

from __future__ import annotations

import shutil
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.outlook.cost import StageCost
from pipeline.report.tables import table
from pipeline.workspace.amounts import in_bytes
from pipeline.workspace.durations import in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from pipeline.outlook.taken import CostReport
    from pipeline.workspace.stage import PlanStep
    from pipeline.workspace.workspace import OpenWorkspace


def plan_table(steps: Sequence[PlanStep]) -> Table:
    """Return what would run and what is up to date, why, and what it takes."""
    rows = [(*step.cells(), cost_text(step.cost) if step.cost else "") for step in steps]
    return table("plan", ("stage", "about", "state", "why", "takes about"), rows)


def cost_lines(ws: OpenWorkspace, costs: Mapping[str, StageCost], rates: str) -> Iterator[str]:
    """Yield what stages take together, and what of it this machine hasn't got."""
    import psutil

    whole = reduce(add, costs.values(), StageCost())
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(ws.root).free
    yield (
        f"it will take about {_said(ws, costs, whole)} ({rates}), {in_bytes(whole.memory)} of "
        f"{in_bytes(memory)} memory free, and {in_bytes(whole.disk)} of {in_bytes(disk)} disk free"
    )
    if whole.memory > memory:
        yield (
            "there may not be memory enough: lower train.batch_tokens, set "
            "train.activation_checkpointing: true, or take a smaller base"
        )
    if whole.disk > disk:
        yield f"there may not be disk enough at {ws.root}: free some, or move the workspace"


def _said(ws: OpenWorkspace, costs: Mapping[str, StageCost], whole: StageCost) -> str:
    """Return what all takes; where nothing may have to be mended, without that too."""
    others = [cost for stage, cost in costs.items() if stage != "mend"]
    if len(others) in (0, len(costs)) or not ws.spec.mend.rounds:
        return f"{cost_text(whole)} at most"
    rounds = f"{ws.spec.mend.rounds} round{'s' if ws.spec.mend.rounds > 1 else ''}"
    least = cost_text(reduce(add, others, StageCost()))
    return f"{least}; with {rounds} of mending at most {cost_text(whole)}"


def taken_tables(cost: CostReport) -> list[RenderableType]:
    """Return what each stage took beside what was foreseen at most, and all of them together."""
    rows = [
        (
            one.stage,
            *_beside(one.taken.scored, one.foreseen.scored),
            *_beside(one.taken.trained, one.foreseen.trained),
            in_time(one.taken.seconds),
            in_time(one.foreseen.seconds) if one.foreseen.seconds else "",
        )
        for one in (*cost.stages, cost.total)
    ]
    columns = ("stage", "scored", "foreseen", "trained", "foreseen", "time", "foreseen")
    total = cost.total
    memory = (
        f"training took {in_bytes(total.taken.memory)} of memory, foreseen "
        f"{in_bytes(total.foreseen.memory)}; "
        if total.taken.memory
        else ""
    )
    return [
        table("what it took (tokens), and what was foreseen at most", columns, rows),
        Text(
            f"{memory}the workspace grew by {in_bytes(max(0, total.taken.disk))}, foreseen "
            f"{in_bytes(total.foreseen.disk)}"
        ),
    ]


def _beside(taken: int, foreseen: int) -> tuple[str, str]:
    return f"{taken:,}" if taken else "", f"{_rounded(foreseen):,}" if foreseen else ""


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
