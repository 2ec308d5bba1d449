"""The verb merge: one adapter or several, into their base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.api.workspace import Workspace


def merge(
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="An adapter's id or alias; several times for several."),
    ] = None,
    *,
    method: Annotated[
        str | None,
        typer.Option("--method", help="cat, linear, svd, ties, dare_ties, slerp, mergekit:RULE …"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="One an adapter, as 0.7,0.3; or search: found on dev."),
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="What ties, dare and such keep of a delta.")
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="What svd cuts to.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="What dare and della draw by.")] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Merge adapters into their base, with proof that the logits are what they should be.

    Example: `gapmend merge --adapter champion -C examples/quickstart`
    """

    def work(ws: Workspace) -> Answer:
        from pipeline.report.merge import merge_tables

        report = ws.merge(
            *(adapter or ()),
            method=method,
            weights=_weights(weights),
            density=density,
            rank=rank,
            seed=seed,
        )
        return Answer(report, merge_tables(report))

    in_workspace(workspace, work, as_json=as_json)


def _weights(text: str | None) -> Sequence[str] | Literal["search"] | None:
    if text is None or text == "search":
        return text
    return [part.strip() for part in text.split(",")]
