"""The report of `train --dry-run`: three rows with their trained parts marked, then the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.report.tables import table
from pipeline.workspace.amounts import in_bytes
from pipeline.workspace.durations import in_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from pipeline.training.preview.dry_run import DryRun, Piece, ShownRow

_TRAINED = "bold green"
_LONG = 600  # characters of a piece, before its middle is left out
_NAMED_REJECTS = 3


def dry_run_tables(report: DryRun) -> list[RenderableType]:
    """Return three rows with their trained tokens marked, a table of facts, and the warnings."""
    shown: list[RenderableType] = []
    for row in report.shown:
        shown += [_heading(row), MarkedRow(row.pieces), Text()]
    shown.append(table("dry run: nothing was trained", ("what", "how much"), [*_facts(report)]))
    for reject in report.rejects[:_NAMED_REJECTS]:
        shown.append(Text(f"{reject.where or f'row {reject.uid}'} is left out: {reject.reason}"))
    more = len(report.rejects) - _NAMED_REJECTS
    if more > 0:
        shown.append(Text(f"and {more} more rows are left out"))
    return [*shown, *(Text(f"warning: {line}", style="yellow") for line in report.warnings)]


def _heading(row: ShownRow) -> Text:
    said = f"{row.which} row ({row.uid}): {row.tokens} tokens, {row.trained_tokens} trained"
    return Text(said, style="bold")


def _facts(report: DryRun) -> Iterator[tuple[str, str]]:
    found, free = report.estimate, report.free
    yield "base, method", f"{report.base}, {report.method}"
    yield "rows", f"{report.rows:,} ({len(report.rejects):,} rejected)"
    if found is not None:
        yield "tokens", f"{found.tokens:,} ({found.trained_tokens:,} trained)"
        yield "batches, steps", f"{report.batches:,}, {found.steps:,}"
        yield "trained numbers", f"{found.trainable:,}"
        yield "memory", f"{in_bytes(found.weights)} base + about {in_bytes(found.growth)}"
    yield "free", "not known" if free is None else f"{in_bytes(free.bytes)} of {free.where}"
    if found is not None:
        yield "time", f"about {in_time(found.seconds)}"


@dataclass(frozen=True)
class MarkedRow:
    """A row's text with what is trained in colour, or in «guillemets» where there is none."""

    pieces: Sequence[Piece]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it for this console."""
        coloured = console.color_system is not None and not console.no_color
        text = Text(overflow="fold")
        for piece in self.pieces:
            plain = _printable(_shortened(piece.text))
            if not piece.trained:
                text.append(plain)
            elif coloured:
                text.append(plain, _TRAINED)
            else:
                text.append(f"«{plain}»")
        yield text


def _shortened(text: str) -> str:
    left_out = len(text) - _LONG
    if left_out <= 0:
        return text
    half = _LONG // 2
    return f"{text[:half]} [… {left_out:,} characters …] {text[-half:]}"


def _printable(text: str) -> str:
    """Rows come from anywhere: a terminal's control sequences are not to reach it."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}"
                   for one in text)  # fmt: skip
