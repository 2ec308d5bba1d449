"""The verbs that take care of the store: what goes, what can go, and a copy for other programs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_store

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace

YesOption = Annotated[bool, typer.Option("--yes", help="Do it; without, it is only shown.")]


def erase(
    where: Annotated[
        str | None, typer.Option("--where", help="An SQL condition over the view rows.")
    ] = None,
    row: Annotated[list[int] | None, typer.Option("--row", help="A row's row_uid.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record; no content.")] = "",
    *,
    yes: YesOption = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Erase rows from every version and evaluation; shows first what saw them.

    Example: `gapmend erase --where "source_line = 17" -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.care import erase_tables

        report = ws.erase(where, rows=row or (), reason=reason, do=yes)
        return Answer(report, erase_tables(report))

    in_store(workspace, work, as_json=as_json)


def gc(
    *, yes: YesOption = False, workspace: WorkspaceOption = HERE, as_json: JsonOption = False
) -> None:
    """Remove what nothing refers to: killed runs' leftovers, caches, traces of erased rows.

    Example: `gapmend gc -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.care import gc_tables

        report = ws.gc(remove=yes)
        return Answer(report, gc_tables(report))

    in_store(workspace, work, as_json=as_json)


def snapshot(
    file: Annotated[Path, typer.Argument(help="The copy's file, outside of .gapmend.")],
    *,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Copy the catalog with its views into a DuckDB file that other programs may hold open.

    Example: `gapmend snapshot catalog-copy.duckdb -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        target = workspace / file
        made = ws.snapshot(target)
        return Answer(made, [f"wrote {made.objects} objects to {target}"])

    in_store(workspace, work, as_json=as_json)
