"""`gapmend serve`: the workspace's models by OpenAI's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import signals
from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_workspace

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace

PORT = 8000


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Serve these alone: the base's name, or adapters and merged models by id or "
            "alias; by default all.",
            show_default=False,
        ),
    ] = None,
    *,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; other than 127.0.0.1 wants a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")
    ] = PORT,
    token: Annotated[
        bool,
        typer.Option(
            "--token", help="Want a token on 127.0.0.1 too: GAPMEND_TOKEN, or one that is made."
        ),
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="A line on stderr for each request.")] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Serve the base, every adapter and every merged model by OpenAI's API, until it is stopped.

    Example: `gapmend serve -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        with signals.left_to_others():
            served = ws.serve(models or (), host=host, port=port, token=token, log=log)
        return Answer(served, [served.line()])

    in_workspace(workspace, work, as_json=as_json)
