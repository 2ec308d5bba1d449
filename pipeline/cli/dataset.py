"""The verbs of datasets: list, show, compare, name and write out their versions."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_store
from registry.datasets.choices import FormName, Group  # noqa: TC001 - as above

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace

dataset = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List, show, compare, name and write out versions of datasets.\n\n"
    "A version is named by a dataset (its newest), a tag, an id, the beginning of one, or "
    "NAME@TAG.\n\n"
    "Example: `gapmend dataset ls -C examples/quickstart`",
)


VersionArgument = Annotated[
    str, typer.Argument(help="A version: dataset, tag, id, beginning of an id, or NAME@TAG.")
]
RowsOption = Annotated[
    int, typer.Option("--rows", min=0, max=10_000, help="Print so many rows at most.")
]


@dataset.command("ls")
def list_(*, workspace: WorkspaceOption = HERE, as_json: JsonOption = False) -> None:
    """List the datasets, each by its newest version.

    Example: `gapmend dataset ls -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.dataset import list_table

        found = ws.datasets()
        return Answer(found, [list_table(found)])

    in_store(workspace, work, as_json=as_json)


@dataset.command()
def log(
    name: Annotated[str, typer.Argument(help="A dataset's name.")],
    *,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show the versions of a dataset, the oldest first: rows that came and went, tags.

    Example: `gapmend dataset log reviews -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.dataset import log_table

        found = ws.dataset.log(name)
        return Answer(found, [log_table(name, found)])

    in_store(workspace, work, as_json=as_json)


@dataset.command()
def show(
    version: VersionArgument,
    *,
    rows: RowsOption = 3,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show one version: splits, kinds, sources, rejects, who was trained on it, its first rows.

    Example: `gapmend dataset show reviews --rows 5 -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.dataset import facts_tables

        facts = ws.dataset.show(version, rows=rows)
        return Answer(facts, facts_tables(facts))

    in_store(workspace, work, as_json=as_json)


@dataset.command()
def diff(
    first: VersionArgument,
    second: VersionArgument,
    *,
    group: Annotated[
        Group | None, typer.Option("--show", help="Print the rows of this group.")
    ] = None,
    rows: RowsOption = 10,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions row by row: added, removed, changed, moved between splits.

    Changed is the same question with another answer, or else the same line of the same file.

    Example: `gapmend dataset diff reviews@v1 reviews --show changed -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.dataset import diff_tables

        found = ws.dataset.diff(first, second, show=group, limit=rows)
        return Answer(found, diff_tables(found))

    in_store(workspace, work, as_json=as_json)


@dataset.command()
def tag(
    version: VersionArgument,
    name: Annotated[str, typer.Argument(help="The tag that moves to it.")],
    *,
    expect: Annotated[
        str | None,
        typer.Option("--expect", help="Move only if it points at this now; `none`: at nothing."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the history.")] = "",
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Point a tag at a version; who moved it when, and why, is kept.

    Example: `gapmend dataset tag reviews v1 -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        moved = ws.dataset.tag(version, name, expect=expect, reason=reason)
        before = f" (it was {moved.previous[:12]})" if moved.previous else ""
        return Answer(moved, [f"{name} is {moved.version[:12]}{before}"])

    in_store(workspace, work, as_json=as_json)


@dataset.command()
def export(
    version: VersionArgument,
    folder: Annotated[Path, typer.Argument(help="A new or an empty folder.")],
    *,
    form: Annotated[FormName, typer.Option("--format", help="What is written.")] = "parquet",
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="This split alone; may be given again. By default all three."),
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write a version out as Parquet, JSON lines, or for datasets, LLaMA-Factory or TRL.

    Example: `gapmend dataset export reviews out/reviews --format trl -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.dataset import export_tables

        report = ws.dataset.export(version, folder, form, splits=split or ())
        return Answer(report, export_tables(report))

    in_store(workspace, work, as_json=as_json)
