"""Reports of `train --compare` and `train --sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.report.tables import table
from pipeline.verbs.compare import why_lora
from pipeline.workspace.amounts import in_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.verbs.compare import CompareReport

_COLUMNS = (
    *("", "adapter", "gap closed", "lost", "gained", "forgotten"),
    *("trained numbers", "memory", "seconds", "loss"),
)


def compare_tables(report: CompareReport) -> list[RenderableType]:
    """Return one line a variant, what could not be trained, and what that says of LoRA."""
    rows = [
        (
            one.name,
            one.adapter_id[:12],
            f"{one.share:.0%}",
            one.lost,
            one.gained,
            one.forgotten,
            f"{one.trainable:,}",
            in_bytes(one.memory),
            f"{one.seconds:.1f}",
            f"{one.loss:.3f}",
        )
        for one in report.variants
    ]
    shown: list[RenderableType] = [
        table(f"selection {report.selection_id[:12]}, each against its base (dev)", _COLUMNS, rows)
    ]
    shown += [Text(f"{one.name} was not trained: {one.why}") for one in report.failed]
    why = why_lora(report.variants)
    return [*shown, Text(why)] if why else shown
