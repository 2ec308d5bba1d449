"""What each stage's report looks like to people: one function a stage, in the loop's order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from pipeline.tables import table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from evals.stats import Interval
    from pipeline.forget import ForgetReport
    from pipeline.gap import GapReport
    from pipeline.ingest import IngestReport

_COLOURS = {
    "met": "green",
    "prompt": "cyan",
    "tune": "yellow",
    "inconclusive": "magenta",
    "closed": "green",
    "open": "red",
    "kept": "green",
    "forgotten": "red",
}


def ingest_table(report: IngestReport) -> Table:
    """Return each dataset's version: rows by split, rejects, whether it was there already."""
    rows = [
        (
            one.name,
            one.version_id[:12],
            one.facts["rows"],
            *(one.facts["splits"].get(split, 0) for split in ("train", "dev", "test", "held")),
            one.facts["rejects"],
            "up to date" if one.cached else f"{one.seconds:.1f} s",
        )
        for one in report.datasets
    ]
    columns = ("dataset", "version", "rows", "train", "dev", "test", "held", "rejects", "")
    return table("datasets", columns, rows)


def gap_table(report: GapReport) -> Table:
    """Return the gap table: score, interval, best prompt and verdict of each capability."""
    made = table(
        f"what {report.base} lacks (dev)",
        ("", "goal", "zero-shot", "95% interval", "gap", "best prompt", "verdict"),
        [],
    )
    for one in report.findings:
        made.add_row(
            one.capability,
            f"{one.goal:.2f}",
            f"{one.base.mean:.3f}",
            bounds(one.base),
            f"{max(0.0, one.gap):.3f}",
            _prompt(one.best_prompt, one.best_prompt_interval, one.prompt_tokens),
            verdict(one.verdict),
        )
    for name, score in report.guards.items():
        made.add_row(name, "guard", f"{score.mean:.3f}", bounds(score), "", "", "")
    return made


def forget_tables(report: ForgetReport) -> list[RenderableType]:
    """Return what an adapter closed and what it lost, item by item counted."""
    at = "" if report.scale == 1 else f" at scale {report.scale:g}"
    closed = table(
        f"what adapter {report.adapter_id[:8]}{at} closed ({report.split})",
        ("capability", "goal", "score", "95% interval", "verdict"),
        [],
    )
    for name, one in report.closed.items():
        closed.add_row(
            name,
            f"{one.goal:.2f}",
            f"{one.score.mean:.3f}",
            bounds(one.score),
            verdict(one.verdict),
        )
    lost = table(
        f"what adapter {report.adapter_id[:8]}{at} lost ({report.split})",
        ("guard", "before", "after", "lost", "gained", "at worst", "allowed", "verdict"),
        [],
    )
    for guard in report.kept:
        lost.add_row(
            guard.guard,
            f"{guard.before:.3f}",
            f"{guard.after:.3f}",
            str(guard.lost),
            str(guard.gained),
            f"{guard.difference.low:+.3f}",
            f"{-guard.max_drop:+.3f}",
            verdict(guard.verdict, " (accepted)" if guard.accepted else ""),
        )
    return [closed, lost]


def bounds(interval: Interval) -> str:
    """Return an interval's bounds as text."""
    return f"{interval.low:.3f} to {interval.high:.3f}"


def verdict(word: str, more: str = "") -> Text:
    """Return a verdict in its colour."""
    return Text(word + more, style=_COLOURS.get(word, ""))


def _prompt(name: str | None, score: Interval | None, tokens: float) -> str:
    if name is None or score is None:
        return "-"
    return f"{name} {score.mean:.3f}, {tokens:.0f} tokens"
