"""The command line: one verb a stage. `gapmend run` does what `gapmend plan` shows.

Nothing heavy is imported here, so that `gapmend --help` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import care as cli_care
from pipeline.cli import chat as cli_chat
from pipeline.cli import dataset as cli_dataset
from pipeline.cli import leaks as cli_leaks
from pipeline.cli import merge as cli_merge
from pipeline.cli import pages as cli_pages
from pipeline.cli import registry as cli_registry
from pipeline.cli import serve as cli_serve
from pipeline.cli import store as cli_store
from pipeline.cli.verb import (
    HERE,
    Answer,
    JsonOption,
    WorkspaceOption,
    answer,
    in_workspace,
    run_app,
    whole_sentences,
)

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace
    from pipeline.workspace.ui import Ui

app = typer.Typer(
    name="gapmend",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's panels take as long again as all the rest of `--help`
)


class ItemFilter(StrEnum):
    """Which items `gapmend forget --show` prints."""

    lost = "lost"
    gained = "gained"


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer gives the option's value so
    if asked:
        from importlib.metadata import version

        typer.echo(f"gapmend {version('gapmend')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Measure what a model lacks, train only that, prove that nothing else was lost."""


AdapterOption = Annotated[
    str | None,
    typer.Option("--adapter", help="An adapter's id or alias; by default the newest one."),
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new workspace's folder.")] = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace to start from: a commented gapmend.yaml and a small dataset.

    Example: `gapmend init my-model`
    """

    def work(_: Ui) -> Answer:
        from pipeline.workspace import init as stage

        made = stage.init(folder)
        return Answer({"files": [str(p) for p in made]}, [f"made {p}" for p in made])

    answer(work, as_json=as_json)


@app.command()
def check(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Validate the spec, find what would stop a run late, and compare sizes with this machine.

    Example: `gapmend check -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.tables import check_tables

        report = ws.check()
        return Answer(report, check_tables(report))

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def plan(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Show what `run` would do, what is up to date and why, and what it will take.

    Example: `gapmend plan -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.plan import plan_table

        steps = ws.plan()
        return Answer(steps, [plan_table(steps)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def run(
    until: Annotated[
        str | None, typer.Option("--until", help="Stop after this stage.", metavar="STAGE")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Run nothing before this stage.", metavar="STAGE"),
    ] = None,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run the loop or a part of it: ingest, gap, select, train, forget, mend, promote, merge.

    Example: `gapmend run --until gap -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        report = ws.run(until=until, start=start)
        return Answer(report, code=report.code)

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def ingest(
    datasets: Annotated[list[str] | None, typer.Argument(help="Names; by default all.")] = None,
    workspace: WorkspaceOption = HERE,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show formats, rejects and three rows, no more.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn the datasets of the spec into versions: Parquet, hashed, split, with rejects.

    Example: `gapmend ingest --dry-run -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        if dry_run:
            from pipeline.report.ingest_dry import look_tables

            looks = ws.ingest_dry(datasets or None)
            return Answer(looks, look_tables(looks))
        from pipeline.report.stages import ingest_table

        report = ws.ingest(datasets or None)
        return Answer(report, [ingest_table(report)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def gap(
    base: Annotated[
        str | None,
        typer.Option("--base", help="Bases of the spec to compare, as in a,b; else train.base."),
    ] = None,
    workspace: WorkspaceOption = HERE,
    *,
    early: Annotated[
        bool, typer.Option("--early", help="Ask no more items where the verdict is clear.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what the base lacks, per capability, and whether a prompt already does it.

    Example: `gapmend gap -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.stages import bases_table, gap_notes, gap_table

        if base is None:
            report = ws.gap(early=early)
            return Answer(report, [gap_table(report), *gap_notes(report)])
        names = dict.fromkeys(name.strip() for name in base.split(","))
        reports = [ws.gap(name, early=early) for name in names]
        tables = [part for one in reports for part in (gap_table(one), *gap_notes(one))]
        compared = [bases_table(reports)] if len(reports) > 1 else []
        return Answer(reports, [*tables, *compared])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def select(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Let the gap decide which rows are trained on, and say why each.

    Example: `gapmend select -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.stages import select_table

        report = ws.select()
        return Answer(report, [select_table(report)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def train(
    selection: Annotated[
        str | None, typer.Option("--selection", help="A selection's id; by default the gap's.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", help="Several methods on the same rows: lora,dora,freeze,full."),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", help="Several values: rank=8,16 or base=a,b or dtype=bf16,int4."),
    ] = None,
    workspace: WorkspaceOption = HERE,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show three rows and what it would take.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter on the selected rows; killed, it goes on from its checkpoint.

    Example: `gapmend train --compare lora,full -C examples/quickstart`
    """
    from pipeline.training.machine.processes import is_first

    def work(ws: Workspace) -> Answer:
        from pipeline.report.stages import train_tables

        if not is_first():
            ws.follow_training()
            return Answer(None)
        if dry_run:
            from pipeline.report.train_dry import dry_run_tables

            looked = ws.train_dry(selection)
            return Answer(looked, dry_run_tables(looked))
        if compare is not None or sweep is not None:
            from pipeline.report.compare import compare_tables

            methods = [name.strip() for name in (compare or "").split(",") if name.strip()]
            compared = ws.compare(methods=methods, sweep=sweep, selection=selection)
            return Answer(compared, compare_tables(compared))
        report = ws.train(selection)
        return Answer(report, train_tables(report))

    in_workspace(workspace, work, as_json=as_json and is_first(), together=True)


@app.command()
def forget(
    adapter: AdapterOption = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Compare with this adapter (id or alias), not the base."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Not an adapter, but another base: such as a merged model."),
    ] = None,
    show: Annotated[
        ItemFilter | None, typer.Option("--show", help="Print these items with both answers.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Measure, item by item, what an adapter made the base forget.

    Example: `gapmend forget --adapter champion --show lost -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.stages import changed_table, forget_tables

        report = ws.forget(adapter, against=against, base=base)
        if show is None:
            return Answer(report, forget_tables(report))
        changed = ws.changed_items(report, show.value)
        data = asdict(report) | {show.value: changed}
        return Answer(data, [*forget_tables(report), changed_table(show.value, changed)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def mend(
    workspace: WorkspaceOption = HERE,
    *,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell in words what mending did; nothing is run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fill in what training lost, round by round, until gaps are closed and guards kept.

    Example: `gapmend mend --explain -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.stages import explanation, mend_tables

        if explain:
            told = ws.explain()
            return Answer(told, explanation(told))
        report = ws.mend()
        return Answer(report, mend_tables(report))

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def promote(
    adapter: AdapterOption = None, workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False
) -> None:
    """Score test once and make the adapter champion, if every gate says yes.

    Example: `gapmend promote -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.stages import promote_tables

        report = ws.promote(adapter)
        return Answer(report, promote_tables(report), code=0 if report.promoted else 1)

    in_workspace(workspace, work, as_json=as_json)


for verb in (
    *(cli_store.sql, cli_store.lineage, cli_store.openlineage, cli_store.status),
    *(cli_store.schema, cli_store.fsck, cli_store.rebuild),
    *(cli_care.erase, cli_care.gc, cli_care.snapshot),
):
    app.command()(verb)
app.command()(cli_pages.report)
app.command()(cli_pages.ui)
app.command()(cli_serve.serve)
app.command()(cli_chat.chat)
app.command()(cli_leaks.leaks)
app.command()(cli_merge.merge)
app.command()(cli_registry.push)
app.command()(cli_registry.pull)
app.command()(cli_registry.reproduce)
app.command()(cli_registry.sign)
app.command()(cli_registry.verify)
app.command()(cli_registry.export)
app.add_typer(cli_registry.adapter, name="adapter")
app.add_typer(cli_dataset.dataset, name="dataset")
app.command("lm-eval", context_settings=cli_store.PASS_ON)(cli_store.lm_eval)
for listed in (app, cli_registry.adapter, cli_dataset.dataset):
    whole_sentences(listed)


def main() -> None:
    """Run the command line; the console script `gapmend`."""
    run_app(app)
