"""The verbs that act on no stage: they ask what is kept, look after it, or call lm-eval.

`main` puts them on the command line beside the stages.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, answer, in_store
from pipeline.workspace.inert import inert
from registry.errors import UserError

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace
    from pipeline.workspace.ui import Ui

PASS_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}
"""Settings of a verb that hands its arguments to another program."""


class TableFormat(StrEnum):
    """How `gapmend sql` prints."""

    table = "table"
    csv = "csv"
    json = "json"


def sql(
    query: Annotated[
        str, typer.Argument(help="One SELECT over the views; see docs/reference/sql.md.")
    ],
    form: Annotated[TableFormat, typer.Option("--format", "-f")] = TableFormat.table,
    workspace: WorkspaceOption = HERE,
    *,
    as_json: JsonOption = False,
) -> None:
    """Ask the catalog in SQL, read-only.

    Example: `gapmend sql "select name, rows from dataset_versions" -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.tables import as_csv, query_table, records

        result = ws.query(query)
        if form is TableFormat.csv:
            return Answer(records(result), [as_csv(result)])
        return Answer(records(result), [query_table(result)])

    in_store(workspace, work, as_json=as_json or form is TableFormat.json)


def lineage(
    thing: Annotated[
        str | None, typer.Argument(help="An id (a prefix will do), an alias or a Hub commit.")
    ] = None,
    *,
    down: Annotated[
        bool, typer.Option("--down/--up", help="What came of it; or what it came from.")
    ] = False,
    dot: Annotated[bool, typer.Option("--dot", help="As a Graphviz graph.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid graph.")] = False,
    files: Annotated[bool, typer.Option("--files", help="Down to the source files.")] = False,
    row: Annotated[int | None, typer.Option("--row", help="Of one row, by its row_uid.")] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show where a thing came from, or what came of it; down to source files, up to every push.

    Example: `gapmend lineage champion --files -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.cli.lineage import answer_for

        if thing is None and row is None:
            raise UserError("nothing to trace", expected="an id, an alias, a commit, or --row UID")
        if thing is not None and row is not None:
            raise UserError(f"two starts: {thing} and row {row}", expected="one of them")
        if dot + mermaid + files > 1:
            raise UserError("several forms", expected="one of --dot, --mermaid and --files")
        form = "dot" if dot else "mermaid" if mermaid else "files" if files else "tree"
        return answer_for(ws, thing or row or 0, form=form, down=down)

    in_store(workspace, work, as_json=as_json)


def openlineage(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file.")] = None,
    *,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write every run as OpenLineage events, one JSON object a line.

    Example: `gapmend openlineage --out events.jsonl -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        import json

        events = ws.openlineage()
        lines = [json.dumps(event, ensure_ascii=False) for event in events]
        if out is None:
            return Answer(events, [] if as_json else [_plain("\n".join(lines))])
        target = workspace / out
        target.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return Answer({"file": str(target), "events": len(lines)}, [f"wrote {target}"])

    in_store(workspace, work, as_json=as_json)


def status(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Show what runs, how far it is, and what is there: versions, verdicts, adapters, last runs.

    Example: `gapmend status -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.tables import status_tables

        report = ws.status()
        return Answer(report, status_tables(report))

    in_store(workspace, work, as_json=as_json)


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

        from pipeline.spec.spec import Spec

        made = Spec.model_json_schema()
        text = json.dumps(made, indent=2, ensure_ascii=False)
        if out is None:
            return Answer(made, [] if as_json else [_plain(text)])
        target = workspace / out
        target.write_text(text + "\n", encoding="utf-8")
        return Answer({"file": str(target)}, [f"wrote {target}"])

    answer(work, as_json=as_json)


def fsck(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Hash every object again and compare the catalog with the store.

    Example: `gapmend fsck -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.tables import fsck_tables

        report = ws.fsck()
        return Answer(report, fsck_tables(report), code=0 if report.clean else 1)

    in_store(workspace, work, as_json=as_json)


def rebuild(workspace: WorkspaceOption = HERE, *, as_json: JsonOption = False) -> None:
    """Make the catalog anew from the manifests in the store.

    Example: `gapmend rebuild -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        report = ws.rebuild()
        return Answer(report, [f"indexed {report.objects} objects again"])

    in_store(workspace, work, as_json=as_json)


def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's own command line; `--model gapmend` is gapmend's engine there.

    Example: `gapmend lm-eval run --model gapmend --model_args pretrained=DIR --tasks arc_easy`
    """
    from evals.engine import harness
    from registry.errors import GapmendError

    try:
        harness.main(context.args)
    except GapmendError as error:  # what lm-eval itself has to say stays as it says it
        typer.echo(inert(f"gapmend: {error}"), err=True)
        raise typer.Exit(error.exit_code) from None


def _plain(text: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - rich's Text, imported late
    from rich.text import Text

    return Text(text)
