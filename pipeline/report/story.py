"""The story of `gapmend run`: each stage's report as it is done, and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipeline.report import stages as reports
from pipeline.report.merge import merge_tables
from pipeline.report.tables import query_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from pipeline.workspace.stage import FinishedStage
    from pipeline.workspace.workspace import OpenWorkspace

_SHOWN: dict[str, Callable[[Any], Sequence[RenderableType]]] = {
    "ingest": lambda report: [reports.ingest_table(report)],
    "gap": lambda report: [
        reports.gap_table(report),
        *_reasons(report),
        *reports.gap_notes(report),
    ],
    "select": lambda report: [reports.select_table(report)],
    "train": reports.train_tables,
    "forget": reports.forget_tables,
    "mend": reports.mend_tables,
    "promote": reports.promote_tables,
    "merge": merge_tables,
}

_QUESTIONS = {
    "Which rows taught the champion?": """
        select capability, reason, count(*) as rows
        from rows_that_taught((select target from aliases where name = 'champion' and current))
        group by all order by capability, reason""",
    "What did each round lose?": """
        select adapters.round, left(adapter_id, 8) as adapter, guard, lost, gained, verdict
        from forgetting join adapters using (adapter_id)
        where split = 'dev' order by round, forgetting.created_at, guard""",
    "Which adapters saw the first selected row?": """
        select row.source_file, row.source_line, left(saw.adapter_id, 8) as adapter
        from (select * from selected_rows order by row_uid limit 1) as row,
             adapters_that_saw((select min(row_uid) from selected_rows)) as saw""",
}


def shown(done: FinishedStage) -> Sequence[RenderableType]:
    """Return a stage's report for people."""
    return [*_SHOWN[done.stage](done.report), Text("")]


def closing(ws: OpenWorkspace, done: Sequence[FinishedStage]) -> list[RenderableType]:
    """Return the end of the story: three questions in SQL, and what to try next."""
    if not any(one.stage == "promote" and one.report.promoted for one in done):
        return _without_champion(done)
    parts: list[RenderableType] = []
    for title, query in _QUESTIONS.items():
        lines = " ".join(query.split())
        parts += [
            Text(title, style="bold"),
            Text(f'gapmend sql "{lines}"', style="dim"),
            query_table(ws.catalog.sql(query, max_rows=12)),
        ]
    return [*parts, Text("Try next", style="bold"), *(Text(line) for line in _NEXT)]


_NEXT = (
    "  gapmend lineage champion             what the champion was made from",
    '  gapmend sql "from eval_samples where score = 0 limit 5"   what is still wrong',
    "  gapmend plan                         change a goal in gapmend.yaml and see what would run",
    "  gapmend init my-model                a workspace of your own",
)


def _without_champion(done: Sequence[FinishedStage]) -> list[RenderableType]:
    if done[-1].stage == "gap":
        return [
            Text("Nothing is trained: no capability has a gap that is real and no prompt closes.")
            if not done[-1].report.untaught
            else Text("Nothing is trained: no row of the pool teaches what has a gap.")
        ]
    return [Text("No adapter was promoted; the reasons are above.")]


def _reasons(report: Any) -> list[RenderableType]:
    return [Text(f"{one.capability}: {one.verdict}, {one.reason}") for one in report.findings]
