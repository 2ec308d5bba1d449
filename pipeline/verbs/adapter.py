"""The adapters of a workspace: compare two, name one, set one aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.workspace.store import WorkspaceStore, adapter_named
from registry.errors import UserError
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.catalog.lists import AliasMove
    from registry.lineage.adapter_facts import AdapterFacts

_TAUGHT = "SELECT row_uid FROM rows_that_taught(?)"


@dataclass(frozen=True)
class Score:
    """A capability or guard on one split with two adapters; None where one wasn't measured."""

    name: str
    split: str
    a: float | None
    b: float | None


@dataclass(frozen=True)
class AdapterDiff:
    """What differs between two adapters.

    Attributes:
        config: key of the PEFT configuration, or of what is known beside -> its two values.
        scores: every score that either has, on the splits that both or one were measured on.
        rows: rows that both were trained on, a alone, b alone.
        weights: module -> size of the difference of the deltas over the size of a's delta
            (Frobenius norms); empty where the shapes or modules differ.
    """

    a: str
    b: str
    same_base: bool
    config: dict[str, tuple[Any, Any]]
    scores: tuple[Score, ...]
    rows: tuple[int, int, int]
    weights: dict[str, float]


def show(ws: WorkspaceStore, name: str) -> AdapterFacts:
    """Return all that is known of one adapter, by id, prefix or alias."""
    from registry.lineage.adapter_facts import describe

    return describe(ws.store, ws.catalog, adapter_named(ws, name))


def diff(ws: WorkspaceStore, first: str, second: str) -> AdapterDiff:
    """Compare two adapters: settings, scores, rows, weights."""
    a, b = show(ws, first), show(ws, second)
    taught = [
        {uid for (uid,) in ws.catalog.query(_TAUGHT, [one.adapter_id]).rows} for one in (a, b)
    ]
    return AdapterDiff(
        a=a.adapter_id,
        b=b.adapter_id,
        same_base=a.base_digest == b.base_digest,
        config=_changed({**a.config, **a.meta}, {**b.config, **b.meta}),
        scores=_scores(a, b),
        rows=(
            len(taught[0] & taught[1]),
            len(taught[0] - taught[1]),
            len(taught[1] - taught[0]),
        ),
        weights=_weights(ws, a, b),
    )


def log(ws: WorkspaceStore, alias: str) -> tuple[AliasMove, ...]:
    """Return every move of an alias, the first one first.

    Raises:
        UserError: no adapter was ever called that.
    """
    from registry.catalog.lists import alias_history

    if not (moves := alias_history(ws.catalog, alias)):
        raise UserError(
            f"no adapter was ever called '{alias}'",
            expected="an alias; `gapmend adapter ls` shows those in use",
        )
    return moves


def remove(ws: WorkspaceStore, name: str, *, reason: str = "") -> str:
    """Set an adapter aside: it is listed and used no more; its record and lineage stay.

    Raises:
        UserError: an alias points at it, or it is gone already.
    """
    from registry.store.kinds import RemovalMeta

    facts = show(ws, name)
    if facts.aliases:
        raise UserError(
            f"{facts.adapter_id[:12]} is {' and '.join(facts.aliases)}",
            fix=f"point it at another one first: gapmend adapter tag OTHER {facts.aliases[0]}",
        )
    ref = ws.store.put(
        "removal",
        None,
        identity={"object": facts.adapter_id},
        parents=[Parent(facts.adapter_id, "adapter")],
        meta=RemovalMeta(reason=reason),
    )
    ws.catalog.commit([ref])
    return facts.adapter_id


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}


def _scores(a: AdapterFacts, b: AdapterFacts) -> tuple[Score, ...]:
    found: list[dict[tuple[str, str], float]] = []
    for facts in (a, b):
        scores = {(one.capability, one.split): one.score for one in facts.closed}
        found.append(scores | {(one.guard, one.split): one.after for one in facts.kept})
    keys = dict.fromkeys([*found[0], *found[1]])
    return tuple(Score(*key, found[0].get(key), found[1].get(key)) for key in keys)


def _weights(ws: WorkspaceStore, a: AdapterFacts, b: AdapterFacts) -> dict[str, float]:
    from registry.models.adapters import adapter_path
    from registry.models.distance import differences

    paths = [adapter_path(ws.store, one.adapter_id) for one in (a, b)]
    return differences(paths[0], a.config, paths[1], b.config)
