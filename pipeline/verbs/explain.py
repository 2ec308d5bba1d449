"""mend --explain: what mending did and why, in plain words, from the catalog alone.

Nothing is measured and nothing trained: the records of the rounds are read, from the newest back
to the selection that the first began with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.measure.rounds import STAGE, Round
from pipeline.pages.words import listed
from registry.errors import StoreRequestError
from registry.store.kinds import ForgettingMeta, RunMeta, SelectionMeta
from registry.store.read_back import read_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.workspace.store import WorkspaceStore
    from registry.store.kinds import Json
    from registry.store.manifest import Manifest

_ID = 8


@dataclass(frozen=True)
class Explanation:
    """The rounds of the newest mending, and the lines that tell of them, a paragraph each."""

    rounds: tuple[Round, ...]
    paragraphs: tuple[str, ...]


def explain(ws: WorkspaceStore) -> Explanation:
    """Tell what the newest mending did.

    Raises:
        UserError: nothing was mended here yet.
    """
    runs = [run for run in ws.catalog.committed(RunMeta, stage=STAGE) if run.meta.done]
    if not runs:
        raise StoreRequestError(
            "nothing has been mended here yet", "mend --explain", fix="run it: gapmend mend"
        )
    chain = _chain(ws, runs)
    rounds = tuple(read_back(Round, run.meta.result, f"run {run.id[:12]}") for run in chain)
    told = [
        " ".join(_round(ws, run.meta.inputs["forgetting"], one))
        for run, one in zip(chain, rounds, strict=True)
    ]
    return Explanation(rounds, (*told, _end(ws, chain[-1].meta.inputs["selection"], rounds[-1])))


def _chain(ws: WorkspaceStore, runs: Sequence[Manifest[RunMeta]]) -> list[Manifest[RunMeta]]:
    """Return the rounds that led to the newest one, that one last."""
    chain = [runs[-1]]
    while chain[0].meta.inputs["round"]:
        selection = ws.catalog.manifest(chain[0].meta.inputs["selection"])
        before = {parent.id for parent in selection.parents if parent.role == "selection"}
        earlier = [run for run in runs if run.meta.inputs["selection"] in before]
        if not earlier:
            break
        chain.insert(0, earlier[-1])
    return chain


def _round(ws: WorkspaceStore, forgetting: str, one: Round) -> Iterator[str]:
    found = ws.catalog.manifest(forgetting, ForgettingMeta).meta
    chosen = ws.catalog.manifest(one.selection_id, SelectionMeta).meta
    taught = [f"{part.rows:,} {_because(part.reason)} {part.capability}" for part in chosen.parts]
    yield (
        f"Round {one.number}. Adapter {one.adapter_id[:_ID]} was trained on {one.rows:,} rows: "
        f"{listed(taught)}."
    )
    if one.number:
        moved = [
            f"{abs(rows):,} {'more' if rows > 0 else 'fewer'} for {name}"
            for name, rows in one.added.items()
        ]
        yield f"That is {listed(moved)} than in the round before."
    for why in one.unfilled.values():
        yield f"Nothing could be added for {why}."
    for name, gap in found.closed.items():
        yield _gap(name, gap, found.changes.get(name, {}))
    fine = [kept["guard"] for kept in found.kept if kept["verdict"] == "kept"]
    if fine:
        yield f"It kept {listed(fine)}."
    for kept in found.kept:
        if kept["verdict"] != "kept":
            yield _loss(kept, found.changes.get(kept["guard"], {}))
    if len(one.curve) > 1 and one.scale is None:
        tried = [at for at in one.curve if at != "1"]
        yield f"It was also tried at scale {listed(tried)}, and not everything holds at any."


def _because(reason: str) -> str:
    return {
        "gap": "drawn for",
        "replay": "with the base's own answers of",
        "mend": "filled in of",
    }.get(reason, f"({reason}) for")


def _gap(name: str, gap: Json, change: Json) -> str:
    score, goal = gap["score"], gap["goal"]
    moved = f"from {change['before']:.3f} to {score['mean']:.3f}" if change else ""
    words = {
        "closed": f"{name} went {moved}: its gap is closed (the goal is {goal:.2f}).",
        "open": f"{name} went {moved} and is still below its goal of {goal:.2f}.",
    }
    unsure = f"{name} went {moved}; {score['n']:,} items are too few to tell whether {goal:.2f} is"
    return words.get(gap["verdict"], f"{unsure} reached.")


def _loss(kept: Json, change: Json) -> str:
    name = f"the witness {kept['guard']}" if kept.get("witness") else str(kept["guard"])
    counted = f"{kept['lost']:,} items are lost and {kept['gained']:,} gained of {kept['n']:,}"
    said = f"Of {name}, {counted}"
    if kept["verdict"] == "inconclusive":
        said = f"{said}, too few items to rule out a loss of {kept['max_drop']:g}"
    else:
        said = f"{said}: that is forgetting"
    again = change.get("reprompt")
    if again:
        back = len(again["came_back_uids"])
        said += f"; asked again with examples, {back} of {again['asked']} come back"
    return f"{said}{', and the spec accepts it' if kept.get('accepted') else ''}."


def _end(ws: WorkspaceStore, selection: str, last: Round) -> str:
    if last.scale == 1:
        name = last.adapter_id[:_ID]
        return f"So it is mended: adapter {name} closes its gaps and keeps the rest."
    if last.scale is not None:
        return f"So it is mended at scale {last.scale:g}, which is an adapter of its own."
    looked = [
        one
        for one in ws.catalog.committed(SelectionMeta)
        if any(p.role == "selection" and p.id == selection for p in one.parents)
    ]
    short = looked[-1].meta.missing if looked else {}
    wanted = [f"{count:,} for {name}" for name, count in short.items()]
    more = f" Of the rows that were wanted then, some are not there: {listed(wanted)}."
    return (
        "So it is not mended: something is open or lost, and no later round is on record. gapmend "
        f"mend goes on where it was stopped, or says what would help.{more if wanted else ''}"
    )
