"""The report of `ingest --dry-run`: the format and why, what would be rejected, three rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.report.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from pipeline.selection.preview import SeenRow
    from pipeline.verbs.ingest_dry import DatasetLook

_FILES = 5  # named of each dataset


def look_tables(looks: Sequence[DatasetLook]) -> list[RenderableType]:
    """Return for each dataset its facts, a table of reasons, and three rows."""
    shown: list[RenderableType] = []
    for one in looks:
        shown += [Text(f"{one.name}: nothing was ingested", "bold"), *_facts(one)]
        if one.reasons:
            columns = ("would be rejected", "records", "first", "there")
            lines = [(r.reason, r.count, f"{r.file}:{r.line}", r.detail) for r in one.reasons]
            shown.append(table("", columns, lines))
        for row in one.rows:
            shown += _row(row)
    return shown


def _facts(one: DatasetLook) -> list[Text]:
    files = [f"{name} ({split})" for name, split in one.files]
    more = f" and {len(files) - _FILES} more" if len(files) > _FILES else ""
    lost = ", ".join(f"{key} (in {count:,} records)" for key, count in one.left_out.items())
    facts = (
        ("format", f"{one.format}: {one.why}"),
        ("files", ", ".join(files[:_FILES]) + more),
        *(("read as", taken) for taken in one.taken),
        ("looked at", f"the first {one.sampled:,} records, {one.rejected:,} would be rejected"),
        ("rows", f"shown {one.template}"),
    )
    told = [Text(f"  {what:<10} {said}") for what, said in facts]
    return [*told, Text(f"  left out   keys of turns: {lost}", "yellow")] if lost else told


def _row(row: SeenRow) -> list[RenderableType]:
    judged = "" if row.label is None else f", the answer is {'good' if row.label else 'bad'}"
    said = f"{row.which} row, {row.file}:{row.line} ({row.kind}{judged})"
    shown: list[RenderableType] = [Text(said, "bold"), _written(row.text)]
    if row.rejected is not None:
        shown += [Text("and with the answer that is worse", "bold"), _written(row.rejected)]
    return [*shown, Text()]


def _written(text: str) -> RenderableType:
    """Return a row's text without what a terminal would obey, its middle left out if long."""
    from pipeline.report.train_dry import MarkedRow
    from pipeline.training.preview.dry_run import Piece

    return MarkedRow([Piece(text, trained=False)])
