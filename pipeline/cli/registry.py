"""The verbs of the registry: adapters and their names, import, pull, push."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import (
    HERE,
    Answer,
    JsonOption,
    WorkspaceOption,
    answer,
    in_store,
    in_workspace,
)

if TYPE_CHECKING:
    from pipeline.api.workspace import Workspace
    from pipeline.workspace.ui import Ui

adapter = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List, show, compare, name, import and set aside adapters.\n\n"
    "Example: `gapmend adapter ls -C examples/quickstart`",
)


class ExportForm(StrEnum):
    """What `gapmend export` writes."""

    safetensors = "safetensors"
    gguf = "gguf"


class GgufDtype(StrEnum):
    """What the matrices of a GGUF file are stored as."""

    f32 = "f32"
    f16 = "f16"
    q8_0 = "q8_0"
    q6_k = "q6_k"
    q5_k_m = "q5_k_m"
    q4_k_m = "q4_k_m"
    q4_0 = "q4_0"


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
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1_000_000, help="The newest so many.")
    ] = 20,
    base: Annotated[str | None, typer.Option("--base", help="Of this base alone.")] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", help="The one that this alias points at.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List the adapters, the newest first.

    Example: `gapmend adapter ls -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import list_table

        page = ws.adapters(limit=limit, base=base, alias=alias)
        return Answer(page, [list_table(page.rows, page.total)])

    in_store(workspace, work, as_json=as_json)


@adapter.command()
def show(
    name: AdapterArgument, *, workspace: WorkspaceOption = HERE, as_json: JsonOption = False
) -> None:
    """Show one adapter: settings, scores, losses, rows, where it went.

    Example: `gapmend adapter show champion -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import facts_tables

        facts = ws.adapter.show(name)
        return Answer(facts, facts_tables(facts))

    in_store(workspace, work, as_json=as_json)


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

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import diff_tables

        found = ws.adapter.diff(first, second)
        return Answer(found, diff_tables(found))

    in_store(workspace, work, as_json=as_json)


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

    def work(ws: Workspace) -> Answer:
        moved = ws.adapter.tag(name, alias, expect=expect, reason=reason, force=force)
        before = f" (it was {moved.previous[:12]})" if moved.previous else ""
        return Answer(moved, [f"{alias} is {moved.target[:12]}{before}"])

    in_store(workspace, work, as_json=as_json)


@adapter.command()
def log(
    alias: Annotated[str, typer.Argument(help="An alias, such as champion.")],
    *,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show where an alias has pointed, the first move first, with the reasons.

    Example: `gapmend adapter log champion -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import log_table

        moves = ws.adapter.log(alias)
        return Answer(moves, [log_table(alias, moves)])

    in_store(workspace, work, as_json=as_json)


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

    def work(ws: Workspace) -> Answer:
        gone = ws.adapter.remove(name, reason=reason)
        return Answer({"removed": gone}, [f"{gone[:12]} is set aside"])

    in_store(workspace, work, as_json=as_json)


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

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import take_lines

        report = ws.pull(source, revision=revision, base=base, key=key)
        return Answer(report, take_lines(report))

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

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import push_tables

        report = ws.push(thing, repo=repo, private=private, as_request=as_request, dry=dry)
        return Answer(report, push_tables(report))

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

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import reproduce_lines

        report = ws.reproduce(name)
        return Answer(report, reproduce_lines(report), code=0 if report.same else 1)

    in_workspace(workspace, work, as_json=as_json)


def sign(
    thing: Annotated[
        str, typer.Argument(help="An adapter or a merged model: id or alias.")
    ] = "champion",
    *,
    key: Annotated[Path | None, typer.Option("--key", help="Your private key's file.")] = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="Only make a pair of keys in this folder.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Sign an adapter or a merged model with a local key, in OpenSSF's format (OMS); offline.

    Example: `gapmend sign champion --key gapmend-signing.key -C examples/quickstart`
    """

    def make(_: Ui) -> Answer:
        from registry.publish.signing import make_key

        pair = make_key(Path(str(new_key)))
        made = {"private": str(pair.private), "public": str(pair.public)}
        return Answer(made, [f"made {pair.private} (keep it) and {pair.public} (hand it out)"])

    def work(ws: Workspace) -> Answer:
        from registry.errors import UserError

        if key is None:
            raise UserError("no key is named", expected="--key FILE, or --new-key FOLDER first")
        report = ws.sign(thing, key=key)
        line = f"{report.kind} {report.thing[:12]}: {len(report.files)} files signed: {report.path}"
        return Answer(report, [line])

    if new_key is not None:
        answer(make, as_json=as_json)
    in_store(workspace, work, as_json=as_json)


def verify(
    target: Annotated[
        str, typer.Argument(help="An adapter or merged model (id or alias), or a folder.")
    ] = "champion",
    *,
    key: Annotated[Path, typer.Option("--key", help="The signer's public key.")],
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Check a signature: file by file what was signed, by the owner of this key.

    Example: `gapmend verify champion --key gapmend-signing.pub -C examples/quickstart`
    """

    def work(_: Ui) -> Answer:
        from pipeline.api.workspace import Workspace
        from pipeline.verbs.sign import verify as check

        if Path(target).is_dir():  # it may be anywhere, and needs no workspace
            report = check(None, target, key)
        else:
            report = Workspace.open(workspace).verify(target, key=key)
        return Answer(report, [f"{report.target}: {len(report.files)} files as signed"])

    answer(work, as_json=as_json)


def export(
    thing: Annotated[str, typer.Argument(help="A merged model or an adapter: id or alias.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    *,
    form: Annotated[
        ExportForm, typer.Option("--form", help="safetensors, or gguf with a Modelfile.")
    ] = (ExportForm.safetensors),
    dtype: Annotated[
        GgufDtype | None,
        typer.Option("--dtype", help="Of a GGUF file's matrices; by default f16."),
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write a merged model or an adapter to a folder, with how to use it; GGUF is read back.

    Of q6_k, q5_k_m, q4_k_m and q4_0 llama.cpp answers the dev items again (the extra `quants`).

    Example: `gapmend export MODEL_ID out --form gguf -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.registry import export_tables

        report = ws.export(thing, out, form=form.value, dtype=dtype.value if dtype else None)
        return Answer(report, export_tables(report))

    in_store(workspace, work, as_json=as_json)


adapter.command("export")(export)
