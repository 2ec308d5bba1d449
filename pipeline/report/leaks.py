"""The report of `gapmend leaks`, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.report.tables import table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.verbs.leaks import LeaksReport


def leaks_tables(report: LeaksReport, *, show: bool) -> list[RenderableType]:
    """Return the pairs of sets that overlap, and the rows themselves if they are to be shown."""
    sets = f"{report.items:,} items of {len(report.sets)} dev and test sets"
    looked = f"{report.rows:,} training rows, {sets}"
    if not report.pairs:
        return [Text(f"no leak: {looked}")]
    made = table(
        "leaks",
        ("training", "dev or test", "exact", "near-duplicate", "13-gram", "trained on"),
        [
            (
                pair.training,
                pair.held_out,
                pair.exact,
                pair.near_duplicate,
                pair.gram,
                "may be" if pair.decides else "no",
            )
            for pair in report.pairs
        ],
    )
    made.caption = f"{report.leaking:,} rows leak; {looked}"
    shown = [
        table(
            "",
            ("training row", "item", "kind", "row says", "item says"),
            [
                (
                    f"{row.training}: {row.row} (row {row.row_uid})",
                    f"{row.held_out}: {row.item}",
                    row.kind,
                    row.row_text,
                    row.item_text,
                )
                for row in report.shown
            ],
        )
    ]
    return [made, *(shown if show else ())]
