"""The verb merge: one adapter or several, into their base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.verb import HERE, Answer, JsonOption, WorkspaceOption, in_workspace

if TYPE_CHECKING:
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.merge.spec import MergeSpec


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
    given = {
        "method": method,
        "weights": _weights(weights),
        "density": density,
        "rank": rank,
        "seed": seed,
    }

    def work(ws: OpenWorkspace, ui: Ui) -> Answer:
        from pipeline import merge as stage
        from pipeline.report.merge import merge_tables
        from pipeline.workspace.kept import CHAMPION, adapter_named

        wanted = adapter or (CHAMPION,)
        if len(wanted) == 1:
            report = stage.merge(ws, ui, adapter_named(ws, wanted[0]))
        else:
            settings = _settings(ws, given)
            report = stage.merge_as(ws, ui, [adapter_named(ws, one) for one in wanted], settings)
        return Answer(report, merge_tables(report))

    in_workspace(workspace, work, as_json=as_json)


def _weights(text: str | None) -> object:
    if text is None or text == "search":
        return text
    return [part.strip() for part in text.split(",")]


def _settings(ws: OpenWorkspace, given: dict[str, object]) -> MergeSpec:
    """The spec's settings, and over them those of this call."""
    from registry.extras import require_extra
    from registry.merge.spec import read_spec

    named = {key: value for key, value in given.items() if value is not None}
    spec = read_spec(ws.spec.merge.model_dump() | named)
    if spec.rule is not None:
        require_extra("mergekit", "method")
    return spec
