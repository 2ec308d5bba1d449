"""Verbs that show a workspace to people: a report, a local page."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_store, json_line

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


def ui(
    *,
    port: Annotated[
        int, typer.Option("--port", "-p", help="Listen on this port; 0 is any that is free.")
    ] = 8642,
    host: Annotated[
        str,
        typer.Option("--host", help="Listen on this host; another than this machine has a token."),
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Serve the workspace as a local page, until Ctrl-C.

    Runs side by side, items, data, lineage, SQL, what runs now, and a chat with its models.

    Example: `gapmend ui --open -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.site.serve import serve

        def said(url: str) -> None:
            line = json_line({"url": url}) if as_json else f"{url}  (Ctrl-C ends it)"
            # With --json, what a verb prints goes to stderr until its answer; this is it, now.
            typer.echo(line, file=sys.__stdout__)
            if show:
                typer.launch(url)

        serve(ws.folder, host, port, said=said)
        sys.exit(0)  # its answer was the address

    in_store(workspace, work, as_json=as_json)
