"""merge: adapters into their base, with proof that the merged model answers as it should.

One adapter becomes a model. Several of one base become a model by a method of `MergeSpec`, and a
new adapter too where the result is LoRA again. Weights can be searched on dev.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.workspace.stage import StageOutput, run_stage
from registry.errors import ModelError, StoreRequestError, UserError
from registry.merge.spec import MERGEKIT, SEARCH, checked, read_spec
from registry.models.adapters import is_tuned, tuned_ref
from registry.models.parity import BOUNDS
from registry.store.kinds import MergeMeta, ModelMeta, WeightsMeta
from registry.store.objects import Parent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pipeline.spec.spec import Spec
    from pipeline.workspace.stage import StageContext, StageOutcome
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.merge.several import SeveralMerged
    from registry.merge.spec import MergeSpec, Method
    from registry.models.load import LoadedModel
    from registry.store.objects import ObjectRef

STAGE = "merge"
VERSION = 1
SEVERAL_VERSION = 1


@dataclass(frozen=True)
class MergeReport:
    """A merged model and how far its logits are from those of what it stands for.

    `merged` is in the same process, `reloaded` from its files in a new one; both are the largest
    difference over the largest logit, and `bound` is what is allowed. `moved` is how far the
    reference is from the base, in the same measure. `path` is relative to the workspace.

    Of one adapter, `adapter_id` is it. Of several, `adapter_ids` are they, `adapter_id` is the new
    one, and the fields after it are those of `SeveralMerged`, with `adapter_off`
    for how far the new adapter is from the reference. `scores` are what a search tried: weights
    and the mean score on dev. `quantised` has the logit distances of the ways to merge into a
    quantised base.
    """

    adapter_id: str | None
    base: str
    model_id: str
    merge_id: str
    path: str
    dtype: str
    bound: float
    merged: float
    reloaded: float
    moved: float
    positions: int
    bytes: int
    run_id: str
    cached: bool
    seconds: float
    reference: str = ""
    untied: bool = False
    quantised: dict[str, float | None] | None = None
    adapter_ids: tuple[str, ...] = ()
    method: str = ""
    weights: tuple[float, ...] = ()
    density: float | None = None
    seed: int | None = None
    rank: int | None = None
    relative_error: float | None = None
    cut: float | None = None
    adapter_off: float | None = None
    no_adapter: str | None = None
    scores: tuple[dict[str, Any], ...] = ()


def merge(
    ws: OpenWorkspace,
    ui: Ui,
    adapter_ids: str | Sequence[str],
    *,
    method: Method = "cat",
    weights: Sequence[float] | str | None = None,
    density: float | None = None,
    rank: int | None = None,
    seed: int = 0,
) -> MergeReport:
    """Merge an adapter, or several of one base, into the base that they were trained on.

    Args:
        ws: the workspace.
        ui: where progress is shown.
        adapter_ids: full ids; of one alone, what follows is of no account.
        method: how several are put together; `mergekit:` and a rule of mergekit is one too.
        weights: of each adapter, in order; `search` finds them by the capabilities' scores on dev.
        density: the share of every delta that `ties`, `dare_*` and their like keep.
        rank: what `svd` cuts to.
        seed: what `dare_*` and their like draw by.

    Raises:
        UserError: that base is not in the spec any more, the adapters are of different bases or of
            a kind that is not merged, or the settings don't fit.
        GateRefusedError: the merged model does not answer as it should.
    """
    ids = [adapter_ids] if isinstance(adapter_ids, str) else list(adapter_ids)
    if len(ids) == 1:
        return _one(ws, ui, ids[0])
    given = {"method": method, "weights": weights, "density": density, "rank": rank, "seed": seed}
    return merge_as(ws, ui, ids, read_spec(given))


def merge_as(ws: OpenWorkspace, ui: Ui, adapter_ids: Sequence[str], spec: MergeSpec) -> MergeReport:
    """Merge several adapters of one base as `spec` says; see `merge`.

    Raises:
        UserError, GateRefusedError: as `merge`.
    """
    checked(spec, len(adapter_ids))
    if len(set(adapter_ids)) < len(adapter_ids):
        raise UserError("an adapter is named twice", expected="different adapters, with weights")
    base = _base_of(ws, adapter_ids[0])
    for other in adapter_ids[1:]:
        if _trained_on(ws, other) != _trained_on(ws, adapter_ids[0]):
            raise ModelError(
                f"adapters {adapter_ids[0][:12]} and {other[:12]} are of different bases",
                expected="adapters of one base",
            )
    for one in adapter_ids:
        tuned_ref(ws.store, one)
    identity = ws.models.identity(base)
    inputs: dict[str, Any] = {
        "adapters": list(adapter_ids),
        "base": identity.digest,
        "bound": BOUNDS[identity.dtype],
        "settings": spec.model_dump(mode="json"),
    }
    if spec.rule is not None:
        from registry.merge.mergekit import mergekit_version

        inputs["mergekit"] = mergekit_version()  # another one may merge otherwise
    parents = [Parent(one, "adapter") for one in adapter_ids]
    if spec.weights == SEARCH:
        from pipeline.gap import dev_inputs
        from pipeline.ingest import resolve
        from pipeline.spec.subjects import measured_datasets

        ws.models.backend(base)  # first: no data is read for one that isn't there
        resolved = resolve(ws, ui, measured_datasets(ws.spec))
        inputs["dev"], datasets = dev_inputs(resolved, base)
        parents += datasets
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: _several(ws, ctx, base, adapter_ids, spec),
        version=SEVERAL_VERSION,
        parents=parents,
        config=spec.model_dump(mode="json"),
        seed=spec.drawn_by,
    )
    return _report(outcome)


def settings(spec: Spec, over: Mapping[str, object]) -> MergeSpec:
    """Return the settings that the spec has under `merge`, and over them those that aren't None.

    Raises:
        UserError: one isn't what it may be, or mergekit isn't installed.
    """
    from registry.extras import require_extra

    named = {key: value for key, value in over.items() if value is not None}
    found = read_spec(spec.merge.model_dump() | named)
    if found.rule is not None:
        require_extra("mergekit", "method")
    return found


def _one(ws: OpenWorkspace, ui: Ui, adapter_id: str) -> MergeReport:
    base = _base_of(ws, adapter_id)
    tuned_ref(ws.store, adapter_id)  # merged before or not: it has to be whole
    identity = ws.models.identity(base)
    inputs = {
        "adapter": adapter_id,
        "base": identity.digest,
        "bound": BOUNDS[identity.dtype],
    }
    outcome = run_stage(
        ws,
        ui,
        STAGE,
        inputs,
        lambda ctx: _merge_and_prove(ws, ctx, base, adapter_id),
        version=VERSION,
        parents=[Parent(adapter_id, "adapter")],
    )
    return _report(outcome)


def _report(outcome: StageOutcome) -> MergeReport:
    model, made = outcome.outputs["model"], outcome.outputs["merge"]
    return outcome.report(MergeReport, model_id=model, merge_id=made)


def _merge_and_prove(
    ws: OpenWorkspace, ctx: StageContext, base: str, adapter_id: str
) -> StageOutput:
    from registry.merge.one import merge_adapter, tensors_to_merge
    from registry.models.adapters import adapter_path

    loaded = ws.models.get(base)
    parents = [Parent(ctx.run_id, "run"), Parent(adapter_id, "adapter")]
    path, label = adapter_path(ws.store, adapter_id), f"merge · {adapter_id[:8]} into {base}"
    total = tensors_to_merge(loaded, [path])
    with ws.store.draft() as draft, ctx.ui.progress(label, total, "tensors") as bar:
        done = merge_adapter(loaded, path, draft, bar.advance)
        known = {"base": loaded.identity.digest, "adapter": adapter_id}
        meta = {"base": base, "adapter_id": adapter_id, "dtype": done.parity.dtype}
        model, size = _put_model(ws, draft, known, meta, parents)
    result = {
        "adapter_id": adapter_id,
        "base": base,
        "path": model.path.relative_to(ws.root).as_posix(),
        "bytes": size,
        **asdict(done.parity),
        "quantised": asdict(done.quantised) if done.quantised else None,
    }
    made = ws.store.put(
        "merge",
        None,
        identity={"model": model.id, "adapter": adapter_id, "method": "add to base"},
        parents=[*parents, Parent(model.id, "model")],
        meta=MergeMeta.model_validate(
            {**result, "scale": 1.0, "max_difference": _furthest(result)}
        ),
    )
    return StageOutput(result, [("model", model), ("merge", made)])


def _several(
    ws: OpenWorkspace, ctx: StageContext, base: str, adapter_ids: Sequence[str], spec: MergeSpec
) -> StageOutput:
    from registry.merge.one import tensors_to_merge
    from registry.models.adapters import adapter_path

    loaded = ws.models.get(base)
    paths = [adapter_path(ws.store, one) for one in adapter_ids]
    scores: list[dict[str, Any]] = []
    if spec.weights == SEARCH:
        from pipeline.ingest import resolve
        from pipeline.measure.merge_search import search
        from pipeline.spec.subjects import measured_datasets

        resolved = resolve(ws, ctx.ui, measured_datasets(ws.spec))
        spec, scores = search(resolved, ctx, loaded, paths, spec)
    new = ctx.workdir / "adapter"
    parents = [Parent(ctx.run_id, "run"), *(Parent(one, "adapter") for one in adapter_ids)]
    label = f"merge · {spec.method} of {len(paths)} adapters into {base}"
    total = tensors_to_merge(loaded, paths)
    with ws.store.draft() as draft, ctx.ui.progress(label, total, "tensors") as bar:
        made = _merged(loaded, paths, spec, draft, new, bar.advance)
        said = _settings(adapter_ids, made)
        known = {"base": loaded.identity.digest, **said}
        meta = {"base": base, "dtype": made.parity.dtype, **said}
        model, size = _put_model(ws, draft, known, meta, parents)
    outputs = [("model", model)]
    if made.no_adapter is None:
        outputs.append(("adapter", _publish(ws, ctx, loaded, new, made, adapter_ids)))
    result = {
        "adapter_id": outputs[-1][1].id if made.no_adapter is None else None,
        "base": base,
        "path": model.path.relative_to(ws.root).as_posix(),
        "bytes": size,
        **asdict(made.parity),
        **{key: value for key, value in asdict(made).items() if key not in ("parity", "adapter")},
        "adapter_off": made.adapter,
        "adapter_ids": list(adapter_ids),
        "scores": scores,
    }
    merged = ws.store.put(
        "merge",
        None,
        identity={"model": model.id, **said},
        parents=[*parents, *(Parent(ref.id, role) for role, ref in outputs if role == "model")],
        meta=MergeMeta.model_validate(
            {**result, "scale": 1.0, "max_difference": _furthest(result)}
        ),
    )
    return StageOutput(result, [*outputs, ("merge", merged)])


def _merged(
    loaded: LoadedModel,
    paths: Sequence[Path],
    spec: MergeSpec,
    draft: Path,
    new: Path,
    advance: Callable[[int], None],
) -> SeveralMerged:
    if spec.rule is None:
        from registry.merge.several import merge_adapters

        return merge_adapters(loaded, paths, spec, draft, new, advance)
    from registry.merge.mergekit import merge_by_mergekit

    return merge_by_mergekit(loaded, paths, spec, draft, advance)


def _settings(adapter_ids: Sequence[str], made: SeveralMerged) -> dict[str, Any]:
    """Return what decides a merge of several, beside their base."""
    by = {}
    if made.method in MERGEKIT:
        from registry.merge.mergekit import mergekit_version

        by["mergekit"] = mergekit_version()
    return by | {
        "adapters": list(adapter_ids),
        "method": made.method,
        "weights": list(made.weights),
        "density": made.density,
        "rank": made.rank,
        "seed": made.seed,
    }


def _put_model(
    ws: OpenWorkspace,
    draft: Path,
    known: Mapping[str, Any],
    meta: Mapping[str, Any],
    parents: Sequence[Parent],
) -> tuple[ObjectRef, int]:
    """Put the files in `draft` into the store as a model; return it and its size in bytes."""
    from registry.store.hashing import file_digest

    files = sorted(path for path in draft.iterdir() if path.is_file())
    size = sum(path.stat().st_size for path in files)
    identity = {**known, "files": {path.name: file_digest(path) for path in files}}
    made = ws.store.put(
        "model",
        draft,
        identity=identity,
        parents=parents,
        meta=ModelMeta.model_validate({**meta, "bytes": size}),
    )
    return made, size


def _publish(
    ws: OpenWorkspace,
    ctx: StageContext,
    loaded: LoadedModel,
    folder: Path,
    made: SeveralMerged,
    adapter_ids: Sequence[str],
) -> ObjectRef:
    """Put the new adapter into the store, as one that was put together from these."""
    from registry.models.adapters import publish

    settings = _settings(adapter_ids, made)
    meta = {**settings, "method": f"merge: {made.method}", "alpha": made.rank, "scale": 1.0}
    return publish(
        ws.store,
        folder,
        base=loaded.identity,
        tokenizer=loaded.tokenizer,
        meta={**meta, "relative_error": made.relative_error},
        parents=[Parent(ctx.run_id, "run"), *(Parent(one, "part") for one in adapter_ids)],
    )


def _furthest(result: Mapping[str, Any]) -> float:
    return max(float(result["merged"]), float(result["reloaded"]))


def _trained_on(ws: OpenWorkspace, adapter_id: str) -> str:
    """Return the digest of an adapter's base.

    Raises:
        UserError: the id is of something else.
    """
    manifest = ws.catalog.manifest(adapter_id)
    if not is_tuned(manifest):
        raise StoreRequestError(f"{adapter_id[:12]} is a {manifest.kind}", expected="an adapter")
    return manifest.decided_by("base")


def _base_of(ws: OpenWorkspace, adapter_id: str) -> str:
    """Return the name in the spec of the base that an adapter was trained on."""
    wanted = _trained_on(ws, adapter_id)
    named = ws.catalog.manifest(adapter_id, WeightsMeta).meta.base
    for name in sorted(ws.spec.bases, key=lambda name: name != named):  # its own name first
        if ws.models.identity(name).digest == wanted:
            return name
    raise ModelError(
        f"the base of adapter {adapter_id[:12]} ('{named}') is not in the spec as it was",
        where="bases",
        expected="the same weights, tokenizer, template and dtype",
    )
