"""Reports of the verbs that take care of the store, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.report.tables import table
from pipeline.workspace.amounts import in_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.verbs.erase import EraseReport
    from pipeline.verbs.gc import GcReport

_SHOWN = 20  # lines of a table
_HOLD = ("dataset_version", "eval", "selection")
_SAW = ("adapter", "merge", "model", "export", "push")


def erase_tables(report: EraseReport) -> list[RenderableType]:
    """Return what an erasure takes away, what saw the rows, and what is left to do."""
    reach, done = report.reach, report.erasure_id is not None
    shown: list[RenderableType] = []
    holding, saw = reach.of(*_HOLD), reach.of(*_SAW)
    title = "rows taken out of" if done else "rows would be taken out of"
    shown += _listed(title, ("kind", "id", "what"), [(o.kind, o.id[:12], o.name) for o in holding])
    shown += _listed(
        "made with these rows: stays as it is",
        ("kind", "id", "what"),
        [(one.kind, one.id[:12], one.name) for one in saw],
    )
    shown += _listed(
        "source files that have them: not gapmend's to change",
        ("dataset", "file", "line"),
        [(place.dataset, place.file, place.line) for place in reach.places],
    )
    if reach.near:
        shown.append(Text(f"{reach.near} near-duplicates of them stay: same cluster in rows"))
    if any(one.kind == "adapter" for one in saw):
        shown.append(Text("These weights may still know the rows; they can't be trained again."))
    if any(one.kind == "push" for one in reach.objects):
        shown.append(Text("What was pushed is on the Hub: delete it there."))
    counted = _rows(len(reach.uids))
    if done:
        shown.append(Text(f"erased {counted} (erasure {str(report.erasure_id)[:12]})"))
        shown.append(Text("traces are left in caches and leftovers until: gapmend gc --yes"))
    else:
        shown.append(Text(f"would erase {counted}, for good; with --yes it is done"))
    return shown


def gc_tables(report: GcReport) -> list[RenderableType]:
    """Return what goes or went, and what was kept for the sake of a running stage."""
    shown = _listed(
        "removed" if report.removed else "would be removed",
        ("what", "where", "size", "why"),
        [(one.what, one.path, in_bytes(one.bytes), one.detail) for one in report.found],
    )
    if report.redacted:
        shown.append(Text(f"erased rows taken out of {report.redacted} objects written since"))
    if report.running:
        kept = ", ".join(report.running)
        shown.append(
            Text(f"kept for what is running ({kept}): caches, journals, objects not committed yet")
        )
    total = in_bytes(report.bytes)
    if not report.found:
        shown.append(Text("nothing is left to collect"))
    elif report.removed:
        shown.append(Text(f"removed {len(report.found)} things, {total}"))
    else:
        shown.append(Text(f"{len(report.found)} things, {total}; with --yes they are removed"))
    return shown


def _listed(
    title: str, columns: tuple[str, ...], lines: list[tuple[object, ...]]
) -> list[RenderableType]:
    if not lines:
        return []
    rest = len(lines) - _SHOWN
    shown: list[RenderableType] = [table(title, columns, lines[:_SHOWN])]
    return [*shown, Text(f"and {rest} more")] if rest > 0 else shown


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
