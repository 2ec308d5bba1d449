"""The command line: one verb a stage. `gapmend run` does what `gapmend plan` shows.

Nothing heavy is imported here, so that `gapmend --help` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.verb import (
    HERE,
    Answer,
    JsonOption,
    WorkspaceOption,
    answer,
    in_workspace,
    run_app,
)

if TYPE_CHECKING:
    from pipeline.ui import Ui
    from pipeline.workspace import Workspace

app = typer.Typer(
    name="gapmend",
    help="Measure what a model lacks, train only that, prove that nothing else was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


class Changed(StrEnum):
    """Which items `gapmend forget --show` prints."""

    lost = "lost"
    gained = "gained"


class TableFormat(StrEnum):
    """How `gapmend sql` prints."""

    table = "table"
    csv = "csv"
    json = "json"


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
        from pipeline import init as stage

        made = stage.init(folder)
        return Answer({"files": [str(p) for p in made]}, [f"made {p}" for p in made])

    answer(work, as_json=as_json)


@app.command()
def check(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Validate the spec, find the data and the bases, and compare sizes with this machine.

    Example: `gapmend check -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline import check as stage
        from pipeline.tables import check_tables

        report = stage.check(ws)
        return Answer(report.as_json(), check_tables(report))

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def plan(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Show what `run` would do, what is up to date, and why.

    Example: `gapmend plan -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import run as stage
        from pipeline.tables import plan_table

        steps = stage.plan(ws, ui)
        return Answer([step.as_json() for step in steps], [plan_table(steps)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def run(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Run the whole loop: ingest, gap, select, train, forget, mend, promote, merge.

    Example: `gapmend run -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import run as stage

        report = stage.run(ws, ui)
        return Answer(report.as_json(), code=report.code)

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def ingest(
    datasets: Annotated[list[str] | None, typer.Argument(help="Names; by default all.")] = None,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Turn the datasets of the spec into versions: Parquet, hashed, split, with rejects.

    Example: `gapmend ingest -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import ingest as stage
        from pipeline.report import ingest_table

        report = stage.ingest(ws, ui, datasets or None)
        return Answer(report.as_json(), [ingest_table(report)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def gap(
    base: Annotated[
        str | None,
        typer.Option("--base", help="Bases of the spec to compare, as in a,b; else train.base."),
    ] = None,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Measure what the base lacks, per capability, and whether a prompt already does it.

    Example: `gapmend gap -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import gap as stage
        from pipeline.report import bases_table, gap_table

        if base is None:
            report = stage.gap(ws, ui)
            return Answer(report.as_json(), [gap_table(report)])
        names = dict.fromkeys(name.strip() for name in base.split(","))
        reports = [stage.gap(ws, ui, name) for name in names]
        tables = [gap_table(report) for report in reports]
        compared = [bases_table(reports)] if len(reports) > 1 else []
        return Answer([report.as_json() for report in reports], [*tables, *compared])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def select(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Let the gap decide which rows are trained on, and say why each.

    Example: `gapmend select -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import select as stage
        from pipeline.report import select_table

        report = stage.select(ws, ui)
        return Answer(report.as_json(), [select_table(report)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def train(
    selection: Annotated[
        str | None, typer.Option("--selection", help="A selection's id; by default the gap's.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter on the selected rows; killed, it goes on from its checkpoint.

    Example: `gapmend train -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import run as stage
        from pipeline.report import train_tables

        report = stage.train_selection(ws, ui, selection)
        return Answer(report.as_json(), train_tables(report))

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def forget(
    adapter: AdapterOption = None,
    show: Annotated[
        Changed | None, typer.Option("--show", help="Print these items with both answers.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Measure, item by item, what an adapter made the base forget.

    Example: `gapmend forget --adapter champion --show lost -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import forget as stage
        from pipeline.report import changed_table, forget_tables

        report = stage.forget(ws, ui, stage.tuned(ws, adapter))
        if show is None:
            return Answer(report.as_json(), forget_tables(report))
        changed = stage.changed_items(ws, ui, report, show.value)
        data = report.as_json() | {show.value: [asdict(item) for item in changed]}
        return Answer(data, [*forget_tables(report), changed_table(show.value, changed)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def mend(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Fill in what training lost, round by round, until gaps are closed and guards kept.

    Example: `gapmend mend -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import run as stage
        from pipeline.report import mend_tables

        report = stage.mend_first(ws, ui)
        return Answer(report.as_json(), mend_tables(report))

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def promote(
    adapter: AdapterOption = None, workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False
) -> None:
    """Score test once and make the adapter champion, if every gate says yes.

    Example: `gapmend promote -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import run as stage
        from pipeline.report import promote_tables

        report = stage.promote_mended(ws, ui, adapter)
        return Answer(report.as_json(), promote_tables(report), code=0 if report.promoted else 1)

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def merge(
    adapter: AdapterOption = None, workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False
) -> None:
    """Merge an adapter into its base, with proof that the logits stay the same.

    Example: `gapmend merge --adapter champion -C examples/quickstart`
    """

    def work(ws: Workspace, ui: Ui) -> Answer:
        from pipeline import forget
        from pipeline import merge as stage
        from pipeline.report import merge_table

        name = forget.CHAMPION if adapter is None else adapter
        report = stage.merge(ws, ui, forget.tuned(ws, name).adapter_id)
        return Answer(report.as_json(), [merge_table(report)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the views; see docs/sql.md.")],
    form: Annotated[TableFormat, typer.Option("--format", "-f")] = TableFormat.table,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Ask the catalog in SQL, read-only.

    Example: `gapmend sql "select name, rows from dataset_versions" -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline.tables import as_csv, query_table, records

        result = ws.catalog.sql(query)
        if form is TableFormat.csv:
            return Answer(records(result), [as_csv(result)])
        return Answer(records(result), [query_table(result)])

    in_workspace(workspace, work, as_json=as_json or form is TableFormat.json)


@app.command()
def lineage(
    thing: Annotated[str, typer.Argument(help="An id (a prefix will do) or an alias.")],
    *,
    down: Annotated[bool, typer.Option("--down", help="What came of it, not from it.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="As a Graphviz graph.")] = False,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show where a thing came from, or what came of it.

    Example: `gapmend lineage champion -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline.tables import lineage_tree
        from registry import lineage as graph

        found = graph.lineage(ws.catalog, ws.catalog.alias(thing) or thing, down=down)
        return Answer(found.as_json(), [_plain(graph.dot(found)) if dot else lineage_tree(found)])

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def status(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Show what is there: versions, verdicts, adapters, aliases, the last runs.

    Example: `gapmend status -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline.status import status as read
        from pipeline.tables import status_tables

        report = read(ws)
        return Answer(report, status_tables(report))

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file.")] = None,
    *,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write the JSON Schema of gapmend.yaml, for editors.

    Example: `gapmend schema --out gapmend.schema.json`
    """

    def work(_: Ui) -> Answer:
        import json

        from pipeline.spec import Spec

        made = Spec.model_json_schema()
        text = json.dumps(made, indent=2, ensure_ascii=False)
        if out is None:
            return Answer(made, [] if as_json else [_plain(text)])
        target = workspace / out
        target.write_text(text + "\n", encoding="utf-8")
        return Answer({"file": str(target)}, [f"wrote {target}"])

    answer(work, as_json=as_json)


@app.command()
def fsck(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Hash every object again and compare the catalog with the store.

    Example: `gapmend fsck -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from pipeline.tables import fsck_tables
        from registry.fsck import fsck as examine

        report = examine(ws.store, ws.catalog)
        return Answer(report.as_json(), fsck_tables(report), code=0 if report.clean else 1)

    in_workspace(workspace, work, as_json=as_json)


@app.command()
def rebuild(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Make the catalog anew from the manifests in the store.

    Example: `gapmend rebuild -C examples/quickstart`
    """

    def work(ws: Workspace, _: Ui) -> Answer:
        from registry.rebuild import rebuild as remake

        report = remake(ws.store, ws.catalog)
        return Answer(report.as_json(), [f"indexed {report.objects} objects again"])

    in_workspace(workspace, work, as_json=as_json)


@app.command(
    "lm-eval",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
)
def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's own command line; `--model gapmend` is gapmend's engine there.

    Example: `gapmend lm-eval run --model gapmend --model_args pretrained=DIR --tasks arc_easy`
    """
    from evals import harness
    from registry.errors import GapmendError

    try:
        harness.main(context.args)
    except GapmendError as error:  # what lm-eval itself has to say stays as it says it
        typer.echo(f"gapmend: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _plain(text: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - rich's Text, imported late
    from rich.text import Text

    return Text(text)


def main() -> None:
    """Run the command line; the console script `gapmend`."""
    run_app(app)
