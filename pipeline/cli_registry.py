"""The verbs of the registry: adapters and their names, import, pull, push."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.verb import HERE, Answer, JsonOption, WorkspaceOption, in_workspace

if TYPE_CHECKING:
    from pipeline.ui import Ui
    from pipeline.workspace import Workspace

adapter = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List, show, compare, name, import and set aside adapters.\n\n"
    "Example: `gapmend adapter ls -C examples/quickstart`",
)

AdapterArgument = Annotated[
    str, typer.Argument(help="An adapter's id, a prefix of it or an alias.")
]
BaseOption = Annotated[
    str | None, typer.Option("--base", help="The base it belongs to, where it doesn't say so.")
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Of a Hub id: a branch, a tag or a commit.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", help="A public key that its signature must fit.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]


@adapter.command("ls")
def list_(
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 20,
    base: Annotated[str | None, typer.Option("--base", help="Of this base alone.")] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List the adapters, the newest first.

    Example: `gapmend adapter ls -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline.report_registry import list_table
        from registry.index import adapters

        page = adapters(ws.catalog, limit=limit, base=base)
        return Answer(page.as_json(), [list_table(page.rows, page.total)])

    in_workspace(workspace, work, as_json=as_json)


@adapter.command()
def show(
    name: AdapterArgument, *, workspace: WorkspaceOption = HERE, as_json: JsonOption = False
) -> None:
    """Show one adapter: settings, scores, losses, rows, where it went.

    Example: `gapmend adapter show champion -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline import adapter as verbs
        from pipeline.report_registry import facts_tables

        facts = verbs.show(ws, name)
        return Answer(facts.as_json(), facts_tables(facts))

    in_workspace(workspace, work, as_json=as_json)


@adapter.command()
def diff(
    first: AdapterArgument,
    second: AdapterArgument,
    *,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Compare two adapters: settings, scores, rows, weights.

    Example: `gapmend adapter diff champion 621fcfb6 -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline import adapter as verbs
        from pipeline.report_registry import diff_tables

        found = verbs.diff(ws, first, second)
        return Answer(found.as_json(), diff_tables(found))

    in_workspace(workspace, work, as_json=as_json)


@adapter.command()
def tag(
    name: AdapterArgument,
    alias: Annotated[str, typer.Argument(help="The alias that moves to it.")],
    *,
    expect: Annotated[
        str | None,
        typer.Option("--expect", help="Move only if it points at this now; `none`: at nothing."),
    ] = None,
    reason: ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Move champion without promote; wants a --reason.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at an adapter; who moved it when, and why, is kept.

    Example: `gapmend adapter tag 621fcfb6 candidate -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline import adapter as verbs

        moved = verbs.tag(ws, name, alias, expect=expect, reason=reason, force=force)
        before = f" (it was {moved.previous[:12]})" if moved.previous else ""
        return Answer(moved.as_json(), [f"{alias} is {moved.target[:12]}{before}"])

    in_workspace(workspace, work, as_json=as_json)


@adapter.command("rm")
def remove(
    name: AdapterArgument,
    *,
    reason: ReasonOption = "",
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Set an adapter aside: listed and used no more; its record and lineage stay.

    Example: `gapmend adapter rm 621fcfb6 --reason "a failed try" -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline import adapter as verbs

        gone = verbs.remove(ws, name, reason=reason)
        return Answer({"removed": gone}, [f"{gone[:12]} is set aside"])

    in_workspace(workspace, work, as_json=as_json)


@adapter.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A folder, or owner/name on the Hub.")],
    *,
    revision: RevisionOption = None,
    base: BaseOption = None,
    key: KeyOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Take in an adapter that was trained elsewhere: PEFT's, in safetensors.

    Example: `gapmend adapter import ../their-adapter --base nano -C examples/quickstart`
    """
    pull(source, revision=revision, base=base, key=key, workspace=workspace, as_json=as_json)


def pull(
    source: Annotated[
        str, typer.Argument(help="owner/name or datasets/owner/name on the Hub, or a folder.")
    ],
    *,
    revision: RevisionOption = None,
    base: BaseOption = None,
    key: KeyOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Fetch an adapter, a merged model or a dataset from the Hub; what was pushed keeps its id.

    Example: `gapmend pull me/my-adapter -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline.report_registry import take_lines
        from pipeline.take import take

        report = take(ws, ui, source, revision=revision, base=base, key=key)
        return Answer(report.as_json(), take_lines(report))

    in_workspace(workspace, work, as_json=as_json)


def push(
    thing: Annotated[
        str | None,
        typer.Argument(help="An adapter, a merged model (id or alias) or a dataset's name."),
    ] = None,
    *,
    repo: Annotated[str | None, typer.Option("--repo", help="owner/name on the Hub.")] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="What the repository must be.")
    ] = None,
    as_request: Annotated[
        bool, typer.Option("--pr", help="Leave a pull request open; main stays where it is.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Show files, hashes and card; send nothing.")
    ] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Push an adapter, a merged model or a dataset to the Hub, with its card; by default champion.

    Example: `gapmend push champion --repo me/my-adapter --dry-run -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline.push import push as act
        from pipeline.report_registry import push_tables

        report = act(ws, ui, thing, repo=repo, private=private, as_request=as_request, dry=dry)
        return Answer(report.as_json(), push_tables(report))

    in_workspace(workspace, work, as_json=as_json)


def reproduce(
    name: AdapterArgument = "champion",
    *,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter again from its lineage and compare the two, byte for byte.

    Example: `gapmend reproduce champion -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import forget
        from pipeline import reproduce as stage
        from pipeline.report_registry import reproduce_lines

        report = stage.reproduce(ws, ui, forget.tuned(ws, name).adapter_id)
        return Answer(report.as_json(), reproduce_lines(report), code=0 if report.same else 1)

    in_workspace(workspace, work, as_json=as_json)
