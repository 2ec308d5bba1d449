"""The verb `leaks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_workspace

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace


def leaks(
    thing: Annotated[
        str | None,
        typer.Argument(help="A selection or adapter, by id or alias; by default all train rows."),
    ] = None,
    *,
    show: Annotated[
        bool, typer.Option("--show", help="Print the rows, each with its item.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List what is trained on and measured by at once; exit code 1 if there is any.

    Example: `gapmend leaks champion --show -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.leaks import leaks_tables

        report = ws.leaks(thing)
        shown = leaks_tables(report, show=show)
        return Answer(report.counted(show=show), shown, code=0 if report.clean else 1)

    in_workspace(workspace, work, as_json=as_json)
