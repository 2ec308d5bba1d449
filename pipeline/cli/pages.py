"""Verbs that show a workspace to people: a report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_store

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace


class ReportForm(StrEnum):
    """What `gapmend report` writes."""

    html = "html"
    md = "md"


def report(
    thing: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="An adapter or merged model, by id or alias; by default the champion, else the "
            "newest adapter, else the newest gap.",
        ),
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file.")] = None,
    form: Annotated[
        ReportForm, typer.Option("--format", help="One HTML file, or Markdown (on stdout).")
    ] = ReportForm.html,
    charts: Annotated[
        Path | None, typer.Option("--charts", metavar="DIR", help="Write each chart as PNG there.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write what an adapter learnt, cost and lost as one file for people.

    Example: `gapmend report champion --out report.html -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        path = None if out is None else workspace / out
        folder = None if charts is None else workspace / charts
        made = ws.report(thing, out=path, form=form.value, charts=folder)
        if show:
            typer.launch(made.path.resolve().as_uri())
        if form is ReportForm.md and out is None and not as_json:
            from pipeline.workspace.inert import inert

            typer.echo(inert(made.path.read_text("utf-8")), nl=False)
            return Answer(made, [])
        return Answer(made, [f"wrote {one}" for one in (made.path, *made.charts)])

    in_store(workspace, work, as_json=as_json)
