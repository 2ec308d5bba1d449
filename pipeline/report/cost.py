"""What a run will take, in words."""

from __future__ import annotations

import shutil
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from pipeline.outlook.cost import StageCost
from pipeline.report.tables import in_bytes, in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.workspace.workspace import OpenWorkspace


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
