"""Facts about one adapter from the catalog: for `adapter show`, `diff` and the card."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from registry.errors import ModelError, StoreRequestError
from registry.lineage.graph import lineage
from registry.models.adapters import is_tuned
from registry.models.changed import read_changed_config
from registry.models.files import holds_changed, read_adapter_config
from registry.store.filenames import ADAPTER_CONFIG, CHANGED_CONFIG
from registry.store.held import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from registry.catalog.catalog import Catalog
    from registry.store.manifest import Manifest, Meta
    from registry.store.objects import Store

_Fact = TypeVar("_Fact")
_CLOSED = """
SELECT capability, split, items, goal, before, score, low, high, lost, gained, verdict
FROM closed WHERE adapter_id = ? AND scale = 1 AND against IS NULL
QUALIFY row_number() OVER (PARTITION BY capability, split ORDER BY created_at DESC) = 1
ORDER BY split, capability
"""
_KEPT = """
SELECT guard, split, items, before, after, lost, gained, difference, difference_low, max_drop,
       verdict, witness
FROM forgetting WHERE adapter_id = ? AND scale = 1 AND against IS NULL
QUALIFY row_number() OVER (PARTITION BY guard, split ORDER BY created_at DESC) = 1
ORDER BY split, guard
"""
# Picks before references: of these, the rows that were picked alone are read.
_TAUGHT = """
WITH taught AS MATERIALIZED (
    SELECT object_id AS selection_id, row_uid, capability, reason FROM parquet.stored_picks
    WHERE object_id IN (SELECT selection_id FROM adapter_selections WHERE adapter_id = ?)
)
SELECT drawn.dataset, drawn.version_id, refs.license, taught.capability, taught.reason,
       count(DISTINCT taught.row_uid)
FROM parquet.stored_refs AS refs
JOIN taught ON taught.row_uid = refs.row_uid
JOIN drawn_from AS drawn
  ON drawn.selection_id = taught.selection_id AND drawn.version_id = refs.object_id
GROUP BY ALL ORDER BY ALL
"""
_ALIASES = "SELECT name FROM aliases WHERE target = ? AND current ORDER BY name"
_MERGES = "SELECT merge_id FROM merges WHERE adapter_id = ? ORDER BY created_at"
_PUSHES = "SELECT repo || '@' || revision FROM pushes WHERE adapter_id = ? ORDER BY created_at"
_PROMOTIONS = """
SELECT promotion_id FROM promotions WHERE adapter_id = ? AND promoted ORDER BY created_at
"""


@dataclass(frozen=True, slots=True)
class CapabilityFact:
    """A tuned capability with an adapter: scores are shares of 1, `low` and `high` at 95%."""

    capability: str
    split: str
    items: int
    goal: float
    before: float
    score: float
    low: float
    high: float
    lost: int
    gained: int
    verdict: str


@dataclass(frozen=True, slots=True)
class GuardFact:
    """A guard with an adapter against its base; `difference_low` is a one-sided bound.

    `witness`: none of its rows was trained on.
    """

    guard: str
    split: str
    items: int
    before: float
    after: float
    lost: int
    gained: int
    difference: float
    difference_low: float
    max_drop: float
    verdict: str
    witness: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The newest decision of promote on an adapter that rests on test.

    Attributes:
        promoted: whether it was let through.
        looks: how often these test sets had been looked at by then.
        alpha: what an interval may err by at that look; None in records of before.
        moved: goals that were otherwise at an earlier look, in words.
        refused: what earlier looks at these test sets came to, where the adapter was refused.
    """

    promoted: bool
    looks: int
    alpha: float | None
    moved: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainedRows:
    """Rows of one dataset version that an adapter was trained on, for one reason."""

    dataset: str
    version_id: str
    license: str | None
    capability: str
    reason: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class AdapterBasics:
    """One adapter: what it is, how it was made, and what it is called. No file of rows is read.

    Attributes:
        base: the base's public name: a Hub id, `nano`, or a folder's name.
        revision: the base's commit, for one from the Hub.
        base_digest: the identity of the base that it belongs to.
        config: its PEFT configuration.
        meta: what its manifest says beside: rank, steps, tokens, loss and their like.
        bytes: of its weights.
        settings: every setting that decided the training, by its dotted key in the spec.
    """

    adapter_id: str
    created_at: str
    base: str
    revision: str | None
    base_digest: str
    config: dict[str, Any]
    meta: dict[str, Any]
    bytes: int
    aliases: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AdapterFacts(AdapterBasics):
    """One adapter: also what it does, the rows that it was made from, and where it went.

    Attributes:
        promotions: decisions of promote that let it through.
        imported: those of it and its parts that were trained elsewhere -> their licence, if known.
        decision: what promote said of it on test, if it was asked.
    """

    closed: tuple[CapabilityFact, ...]
    kept: tuple[GuardFact, ...]
    taught: tuple[TrainedRows, ...]
    merges: tuple[str, ...]
    pushes: tuple[str, ...]
    promotions: tuple[str, ...]
    imported: dict[str, str | None]
    decision: Decision | None = None

    @property
    def interval(self) -> str:
        """What the intervals of the split that speaks for it hold at, such as `95%`."""
        decided = self.decision if self.split == "test" else None
        alpha = decided.alpha if decided and decided.alpha is not None else 0.05
        return f"{100 * (1 - alpha):.4g}%"

    @property
    def split(self) -> str | None:
        """The split that speaks for it: test where it was scored there, else dev."""
        found = {one.split for one in self.closed} | {one.split for one in self.kept}
        return next((split for split in ("test", "dev") if split in found), None)


def basics(store: Store, catalog: Catalog, adapter_id: str) -> AdapterBasics:
    """Return what an adapter is and how it was made.

    Args:
        store: where its files are.
        catalog: where the rest is known.
        adapter_id: its full id.

    Raises:
        UserError: no adapter has this id.
    """
    manifest = catalog.manifest(adapter_id)
    if not is_tuned(manifest):
        raise StoreRequestError(
            f"{adapter_id[:12]} is a {manifest.kind}", expected="an adapter's id"
        )
    path = store.objects / manifest.kind / manifest.id
    changed = holds_changed(path)
    name = CHANGED_CONFIG if changed else ADAPTER_CONFIG
    hold(path, {name: manifest.files[name].sha256})  # of the rest nothing is read
    config = read_changed_config(path) if changed else read_adapter_config(path)

    return AdapterBasics(
        adapter_id=manifest.id,
        created_at=manifest.meta.created_at,
        base=str(config["base_model_name_or_path"]),
        revision=config.get("revision"),
        base_digest=manifest.decided_by("base"),
        config=config,
        meta={k: v for k, v in manifest.meta.as_json().items() if k not in {"created_at", "base"}},
        bytes=sum(file.bytes for file in manifest.files.values()),
        aliases=tuple(str(name) for (name,) in catalog.query(_ALIASES, [manifest.id]).rows),
        settings=settings_of(catalog, manifest),
    )


def describe(store: Store, catalog: Catalog, adapter_id: str) -> AdapterFacts:
    """Return what is known of an adapter, as `basics` does and with all that is read for.

    Raises:
        UserError: no adapter has this id.
    """
    known = basics(store, catalog, adapter_id)
    every = [adapter_id, *_parts_of(catalog, adapter_id)]

    def ask(sql: str, made: Callable[..., _Fact]) -> tuple[_Fact, ...]:
        return tuple(made(*row) for row in catalog.query(sql, [adapter_id]).rows)

    return AdapterFacts(
        **{one.name: getattr(known, one.name) for one in fields(known)},
        closed=ask(_CLOSED, CapabilityFact),
        kept=ask(_KEPT, GuardFact),
        taught=_taught(catalog, every),
        imported=_imported(catalog, every),
        decision=_decision(catalog, adapter_id),
        merges=ask(_MERGES, str),
        pushes=ask(_PUSHES, str),
        promotions=ask(_PROMOTIONS, str),
    )


def describe_merged(store: Store, catalog: Catalog, manifest: Manifest[Meta]) -> AdapterFacts:
    """Return what is known of the adapter, or the adapters together, in a merged model.

    Of several, figures are those of none of them: what the model does is measured on the model.

    Raises:
        UserError: the adapters are not here.
    """
    made = manifest.identity
    ids = [made["adapter"]] if made.get("adapter") else list(made.get("adapters") or ())
    if not ids:
        raise ModelError(
            f"model {manifest.id[:12]} names no adapter", expected="a model that was merged here"
        )
    first = describe(store, catalog, ids[0])
    if len(ids) == 1:
        return first
    every = [one for adapter_id in ids for one in (adapter_id, *_parts_of(catalog, adapter_id))]
    return replace(
        first,
        closed=(),
        kept=(),
        decision=None,
        settings={},
        taught=_taught(catalog, every),
        imported=_imported(catalog, every),
    )


_CHOSEN = {
    "learning_rate": "learning_rate",
    "dtype": "dtype",
    "activation_checkpointing": "recomputed",
}
"""What of `train:` may be left out -> what of a run's result says what was chosen then."""


def settings_of(catalog: Catalog, manifest: Manifest[Meta]) -> dict[str, Any]:
    """Return every setting that decided the training of an adapter, by its dotted key.

    Of one that is another at a smaller scale, those of that other, and the scale; of one that was
    merged, those of the merge. Empty where it was trained elsewhere.
    """
    from registry.store.kinds import RunMeta, SelectionMeta

    made = [parent.id for parent in manifest.parents if parent.role == "run"]
    runs = [catalog.manifest(one, RunMeta).meta for one in made]
    parts = [parent.id for parent in manifest.parents if parent.role == "part"]
    if len(parts) == 1:
        scale = {"scale": manifest.meta.as_json().get("scale")}
        return {**settings_of(catalog, catalog.manifest(parts[0])), **scale}
    if not runs or manifest.meta.as_json().get("origin"):
        return {}
    run = runs[-1]
    found = dict(_flat(run.config, run.stage))
    for key, told in _CHOSEN.items():
        if found.get(f"train.{key}", told) is None:
            found[f"train.{key}"] = run.result.get(told)
    if (selection := run.inputs.get("selection")) is not None:
        rows = catalog.manifest(selection, SelectionMeta).meta
        found |= {"selection": selection, "round": rows.round}
        found |= {f"rows.{name}": count for name, count in rows.budget.items()}
        found |= {f"replay.{name}": count for name, count in rows.replay.items()}
    found |= {f"made by {name}": of for name, of in run.environment.get("packages", {}).items()}
    return found | {"made on": run.hardware.get("cpu"), "code": run.code_version}


def _flat(values: Mapping[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}.{key}")
        else:
            yield f"{at}.{key}", value


def _decision(catalog: Catalog, adapter_id: str) -> Decision | None:
    from registry.store.kinds import PromotionMeta

    found = catalog.committed(PromotionMeta, adapter_id=adapter_id, split="test")
    if not found:
        return None
    meta = found[-1].meta
    return Decision(
        promoted=meta.promoted,
        looks=meta.looks,
        alpha=meta.alpha,
        moved=tuple(str(one["said"]) for one in meta.moved),
        refused=tuple(
            f"look {one['look']}, adapter {one['adapter_id'][:8]}: {'; '.join(one['reasons'])}"
            for one in meta.earlier
            if not one["promoted"]
        ),
    )


def _imported(catalog: Catalog, adapter_ids: Sequence[str]) -> dict[str, str | None]:
    from registry.store.kinds import WeightsMeta

    metas = {one: catalog.manifest(one, WeightsMeta).meta for one in adapter_ids}
    return {one: meta.license for one, meta in metas.items() if meta.origin}


def _parts_of(catalog: Catalog, adapter_id: str) -> list[str]:
    return _parts(catalog, catalog.manifest(adapter_id))


def _parts(catalog: Catalog, manifest: Manifest[Meta]) -> list[str]:
    """The adapters that an adapter was merged from, and those that they were."""
    own = [parent.id for parent in manifest.parents if parent.role == "part"]
    return [*own, *(one for part in own for one in _parts_of(catalog, part))]


def _taught(catalog: Catalog, adapter_ids: Sequence[str]) -> tuple[TrainedRows, ...]:
    """The rows that any of these adapters was trained on; a row of two counts for each."""
    found: dict[TrainedRows, int] = {}
    for adapter_id in dict.fromkeys(adapter_ids):
        read = [node.id for node in lineage(catalog, adapter_id).nodes]  # not every file there is
        for row in catalog.query(_TAUGHT, [adapter_id], only=read).rows:
            one = TrainedRows(*row)
            key = replace(one, rows=0)
            found[key] = found.get(key, 0) + one.rows
    return tuple(replace(key, rows=count) for key, count in sorted(found.items(), key=str))
