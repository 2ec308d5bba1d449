"""The account of an adapter: all that the records say of how it came about, in one value.

Nothing is measured or asked here; no words and no markup.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evals.verdicts.forgetting import GuardFinding, SubjectChange
from evals.verdicts.gap import ClosedFinding, GapFinding
from pipeline.measure.rounds import STAGE, Round
from pipeline.pages.licenses import licenses
from pipeline.pages.quantised import quantised_files
from pipeline.pages.unended import Unended, unended
from pipeline.workspace.store import CHAMPION, adapter_named
from registry.catalog.sql import fill
from registry.errors import StoreRequestError
from registry.lineage.adapter_facts import basics
from registry.lineage.graph import lineage
from registry.store.kinds import (
    ForgettingMeta,
    GapMeta,
    MergeMeta,
    MetricsMeta,
    ModelMeta,
    PromotionMeta,
    RunMeta,
    SelectionMeta,
)
from registry.store.read_back import read_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.pages.quantised import QuantisedFile
    from pipeline.workspace.store import WorkspaceStore
    from registry.intake.license import SaidLicense
    from registry.lineage.adapter_facts import AdapterBasics
    from registry.lineage.graph import Lineage
    from registry.store.manifest import Manifest, Meta

_CURVES = "SELECT name, step, value FROM run_metrics WHERE run_id = ? ORDER BY name, step"
_NEAR = """
SELECT reason, score FROM parquet.stored_picks WHERE object_id = ? AND score IS NOT NULL
ORDER BY rank
"""
_ABOUT = """
SELECT id FROM catalog.objects
WHERE kind = 'run' AND contains(manifest, '"adapter":"')
  AND (manifest->>'$.meta.inputs.adapter') IN ? ORDER BY created_at
"""
_ERASED = """
SELECT coalesce(sum(
    json_extract_string(erasure.manifest->'$.meta.redacted', taught.parent)::BIGINT
), 0)
FROM catalog.edges AS taught
JOIN catalog.edges AS redacted ON redacted.parent = taught.parent AND redacted.role = 'redacted'
JOIN catalog.objects AS erasure ON erasure.id = redacted.child
WHERE taught.child = ? AND taught.role = 'selection'
"""
STAGES = ("ingest", "gap", "select", "train", "forget", "mend", "promote", "merge")
_VERSIONS = """
SELECT DISTINCT name, version_id, rows, train, dev, test, license
FROM dataset_versions WHERE version_id IN ? ORDER BY name
"""


@dataclass(frozen=True)
class Measured:
    """What one adapter came to on one split, against its base.

    Attributes:
        id: the forgetting or promotion.
        split: dev or test.
        kept: guards, and capabilities that were not trained.
        closed: trained capability -> whether its gap is closed.
        changes: of both -> what changed.
    """

    id: str
    split: str
    kept: tuple[GuardFinding, ...]
    closed: dict[str, ClosedFinding]
    changes: dict[str, SubjectChange]


@dataclass(frozen=True)
class Training:
    """A selection, the adapter that was trained on it, and what that came to on dev.

    Attributes:
        number: 0 for the first, then the rounds of mending.
        chosen: what was chosen, and what was kept out.
        near: reason -> how near each row is to what was lost, where it was chosen for that.
        weights: what the adapter's record says: rows, steps, tokens, seconds, loss.
        curves: metric -> steps and values.
        measured: on dev; None where it was not.
        mended: what mending made of it; None where it was not asked.
    """

    number: int
    selection_id: str
    chosen: SelectionMeta
    near: dict[str, tuple[float, ...]]
    adapter_id: str
    weights: dict[str, Any]
    curves: dict[str, tuple[tuple[int, float], ...]]
    measured: Measured | None
    mended: Round | None


@dataclass(frozen=True)
class VersionUsed:
    """A dataset version that something rests on.

    `license` is as it was stated when the version was made, `beside` what is known today where it
    was not: by the spec, or by what lies beside the files.
    """

    name: str
    version_id: str
    rows: int
    train: int
    dev: int
    test: int
    license: str | None
    beside: SaidLicense | None = None


@dataclass(frozen=True)
class Spent:
    """What a stage took, over all its runs that this rests on."""

    stage: str
    runs: int
    seconds: float


@dataclass(frozen=True)
class Account:
    """How an adapter came about; without one, what the newest gap found.

    Attributes:
        base: its name in the spec.
        gap_id: the gap that all began with; empty where the adapter was trained elsewhere.
        gap: what was found, a capability each.
        guards: guard -> mean, low, high of the base on dev.
        trainings: the first one and the rounds of mending, in order.
        facts: of the adapter; None where nothing was trained.
        promotion: the newest decision on it, with its id.
        tested: what that measured on test.
        merge: the newest merge of it, with its id.
        versions: of all datasets.
        spent: by stages, in the order of the loop.
        lineage: of the adapter or gap.
        hardware: of the newest run.
        environment: the same.
        erased: rows of the last selection that were erased since: it can't be trained again.
        unended: stages of the workspace that were begun and have no result.
        quantised: files of the merged model that llama.cpp answered dev items with.
        base_license: as the spec, the base's card or its LICENSE file says it today; None where
            none of them is at hand.
    """

    base: str
    gap_id: str
    gap: tuple[GapFinding, ...]
    guards: dict[str, dict[str, float]]
    trainings: tuple[Training, ...]
    facts: AdapterBasics | None
    promotion: tuple[str, PromotionMeta] | None
    tested: Measured | None
    merge: tuple[str, MergeMeta] | None
    versions: tuple[VersionUsed, ...]
    spent: tuple[Spent, ...]
    lineage: Lineage
    hardware: dict[str, Any]
    environment: dict[str, Any]
    erased: int = 0
    unended: tuple[Unended, ...] = ()
    quantised: tuple[QuantisedFile, ...] = ()
    base_license: SaidLicense | None = None

    @property
    def id(self) -> str:
        """What it is an account of: the adapter, or the gap."""
        return self.facts.adapter_id if self.facts else self.gap_id

    @property
    def measured(self) -> Measured | None:
        """What speaks for the adapter: test where it was scored there, else dev."""
        last = self.trainings[-1].measured if self.trainings else None
        return self.tested or last


def account(ws: WorkspaceStore, thing: str | None = None) -> Account:
    """Gather the account of an adapter, merged model or gap: by id, beginning of one, or alias.

    Without a name it is the champion's; without a champion that of the newest adapter, and without
    an adapter that of the newest gap.

    Raises:
        UserError: nothing is there, or nothing of that name.
    """
    told = _account(ws, thing)
    unsaid = [one.name for one in told.versions if one.license is None]
    known = licenses(ws, told.base, told.facts, told.lineage, unsaid)
    versions = (replace(one, beside=known.datasets.get(one.name)) for one in told.versions)
    return replace(told, base_license=known.base, versions=tuple(versions))


def _account(ws: WorkspaceStore, thing: str | None) -> Account:
    named = None if thing is None else ws.catalog.manifest(ws.catalog.alias(thing) or thing)
    if named and isinstance(named.meta, GapMeta):
        return _of_gap(ws, named.of(GapMeta))
    adapter = _adapter(ws) if named is None else _adapter_of(ws, named)
    if adapter is None:
        return _of_gap(ws, _newest_gap(ws))
    facts = basics(ws.store, ws.catalog, adapter)
    came = lineage(ws.catalog, adapter)
    of_kind = {kind: [one.id for one in came.nodes if one.kind == kind] for kind in _KINDS}
    gaps = [ws.catalog.manifest(one, GapMeta) for one in of_kind["gap"]]
    found = max(gaps, key=lambda one: one.meta.created_at) if gaps else None
    about = [*of_kind["run"], *_runs_about(ws, of_kind["adapter"])]  # made it; measured it later
    runs = {one: ws.catalog.manifest(one, RunMeta).meta for one in about}
    promotion = ws.catalog.find(PromotionMeta, adapter_id=adapter)
    merge = ws.catalog.find(MergeMeta, adapter_id=adapter)
    return Account(
        base=found.meta.base if found else facts.base,
        gap_id=found.id if found else "",
        gap=_findings(found) if found else (),
        guards=found.meta.guards if found else {},
        trainings=tuple(_trainings(ws, of_kind["adapter"], [*runs.values()])),
        facts=facts,
        promotion=(promotion.id, promotion.meta) if promotion else None,
        tested=_measured(promotion.id, promotion.meta) if promotion else None,
        merge=(merge.id, merge.meta) if merge else None,
        versions=_versions(ws, of_kind["dataset_version"]),
        spent=_spent([*runs.values()]),
        lineage=came,
        quantised=quantised_files(ws, adapter),
        **_machine([*runs.values()]),
        erased=_erased(ws, adapter),
        unended=unended(ws),
    )


_KINDS = ("gap", "adapter", "run", "dataset_version")


def _runs_about(ws: WorkspaceStore, adapters: Sequence[str]) -> list[str]:
    with ws.catalog.reading() as connection:
        found = connection.execute(fill(_ABOUT, [("", *adapters)])).fetchall()
    return [str(one) for (one,) in found]


def _adapter(ws: WorkspaceStore) -> str | None:
    """Return the champion, else the newest adapter; None where there is none."""
    champion = ws.catalog.alias(CHAMPION)
    if champion is not None:
        return champion
    with ws.catalog.reading() as connection:
        there = connection.execute("SELECT count(*) FROM catalog.adapters").fetchone()
    return adapter_named(ws, None) if there and there[0] else None


def _adapter_of(ws: WorkspaceStore, named: Manifest[Meta]) -> str:
    """Return the adapter of a merged model, or the thing itself where it is one."""
    if isinstance(named.meta, ModelMeta) and named.meta.adapter_id:
        return named.meta.adapter_id
    return adapter_named(ws, named.id)


def _newest_gap(ws: WorkspaceStore) -> Manifest[GapMeta]:
    found = ws.catalog.find(GapMeta)
    if found is None:
        begun = " ".join(one.said for one in unended(ws)).rstrip(".")
        what = f"nothing was measured here yet{f': {begun}' if begun else ''}"
        raise StoreRequestError(what, fix="measure it: gapmend gap")
    return found


def _erased(ws: WorkspaceStore, adapter: str) -> int:
    with ws.catalog.reading() as connection:
        found = connection.execute(fill(_ERASED, [adapter])).fetchone()
    return int(found[0]) if found else 0


def _of_gap(ws: WorkspaceStore, found: Manifest[GapMeta]) -> Account:
    came = lineage(ws.catalog, found.id)
    runs = [ws.catalog.manifest(one.id, RunMeta).meta for one in came.nodes if one.kind == "run"]
    return Account(
        base=found.meta.base,
        gap_id=found.id,
        gap=_findings(found),
        guards=found.meta.guards,
        trainings=(),
        facts=None,
        promotion=None,
        tested=None,
        merge=None,
        versions=_versions(ws, [one.id for one in came.nodes if one.kind == "dataset_version"]),
        spent=_spent(runs),
        lineage=came,
        **_machine(runs),
        unended=unended(ws),
    )


def _findings(found: Manifest[GapMeta]) -> tuple[GapFinding, ...]:
    where = f"gap {found.id[:12]}"
    return tuple(read_back(GapFinding, one, where) for one in found.meta.findings)


def _trainings(
    ws: WorkspaceStore, adapters: Sequence[str], runs: Sequence[RunMeta]
) -> Iterator[Training]:
    """Yield what was trained here, the first one first; adapters put together are not."""
    for one in (ws.catalog.manifest(adapter) for adapter in adapters):
        roles = {parent.role: parent.id for parent in one.parents}
        if "selection" not in roles:
            continue
        chosen = ws.catalog.manifest(roles["selection"], SelectionMeta)
        rounds = [run for run in runs if run.done and run.stage == STAGE]
        rounds = [run for run in rounds if run.inputs["adapter"] == one.id]
        mended = max(rounds, key=lambda run: run.ended_at, default=None)
        yield Training(
            number=chosen.meta.round,
            selection_id=chosen.id,
            chosen=chosen.meta,
            near=_grouped(ws, _NEAR, chosen.id, [chosen.id]),
            adapter_id=one.id,
            weights=one.meta.as_json(),
            curves=curves_of(ws, roles.get("run")),
            measured=_on_dev(ws, one.id),
            mended=read_back(Round, mended.result, "a round of mending") if mended else None,
        )


def curves_of(ws: WorkspaceStore, run: str | None) -> dict[str, tuple[tuple[int, float], ...]]:
    """Return what a run measured on its way: metric -> steps and values."""
    if run is None:
        return {}
    outputs = ws.catalog.manifest(run, RunMeta).meta.outputs
    figures = [one.id for one in outputs if one.kind == MetricsMeta.of_kind]
    return _grouped(ws, _CURVES, run, [run, *figures])


def _grouped(ws: WorkspaceStore, query: str, parameter: str, only: Sequence[str]) -> dict[str, Any]:
    """Return what a query has by its first column, as tuples of the others."""
    found: dict[str, Any] = {}
    for name, *values in ws.catalog.query(query, [parameter], only=only).rows:
        found.setdefault(name, []).append(tuple(values) if len(values) > 1 else values[0])
    return {name: tuple(values) for name, values in found.items()}


def _on_dev(ws: WorkspaceStore, adapter: str) -> Measured | None:
    found = ws.catalog.find(ForgettingMeta, adapter=adapter, split="dev", scale=1.0, against=None)
    return _measured(found.id, found.meta) if found else None


def _measured(thing: str, meta: ForgettingMeta | PromotionMeta) -> Measured:
    where = f"{meta.of_kind} {thing[:12]}"
    return Measured(
        id=thing,
        split=meta.split,
        kept=tuple(read_back(GuardFinding, {**_UIDS, **one}, where) for one in meta.kept),
        closed={name: read_back(ClosedFinding, one, where) for name, one in meta.closed.items()},
        changes={name: read_back(SubjectChange, one, where) for name, one in meta.changes.items()},
    )


_UIDS: dict[str, Any] = {"lost_uids": (), "gained_uids": ()}  # which items: in a file beside


def _versions(ws: WorkspaceStore, ids: Sequence[str]) -> tuple[VersionUsed, ...]:
    if not ids:  # trained elsewhere: none is known
        return ()
    return tuple(VersionUsed(*row) for row in ws.catalog.query(_VERSIONS, [tuple(ids)]).rows)


def _spent(runs: Sequence[RunMeta]) -> tuple[Spent, ...]:
    took = [(stage, [run.seconds for run in runs if run.stage == stage]) for stage in STAGES]
    return tuple(Spent(stage, len(seconds), sum(seconds)) for stage, seconds in took if seconds)


def _machine(runs: Sequence[RunMeta]) -> dict[str, Any]:
    newest = max(runs, key=lambda one: one.ended_at, default=None)
    return {
        "hardware": newest.hardware if newest else {},
        "environment": newest.environment if newest else {},
    }
