"""merge: an adapter into its base, with proof that the merged model answers the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.stage import StageOutput, run_stage
from registry.errors import UserError
from registry.parity import BOUNDS
from registry.store import Parent

if TYPE_CHECKING:
    from pipeline.stage import StageContext
    from pipeline.ui import Ui
    from pipeline.workspace import Workspace

STAGE = "merge"
VERSION = 1


@dataclass(frozen=True)
class MergeReport:
    """A merged model and how far its logits are from those of base + adapter.

    `merged` is in the same process, `reloaded` from its files in a new one; both are the largest
    difference over the largest logit, and `bound` is what is allowed. `moved` is how far the
    adapter moves the base, in the same measure. `path` is relative to the workspace.
    """

    adapter_id: str
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

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def merge(ws: Workspace, ui: Ui, adapter_id: str) -> MergeReport:
    """Merge an adapter into the base that it was trained on.

    Raises:
        UserError: that base is not in the spec any more, or the adapter is of a kind that is not
            merged.
        GateRefusedError: the merged model does not answer as base + adapter do.
    """
    base = _base_of(ws, adapter_id)
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
        lambda ctx: _work(ws, ctx, base, adapter_id),
        version=VERSION,
        parents=[Parent(adapter_id, "adapter")],
    )
    return MergeReport(
        **outcome.result,
        model_id=outcome.outputs["model"],
        merge_id=outcome.outputs["merge"],
        run_id=outcome.run_id,
        cached=outcome.cached,
        seconds=outcome.seconds,
    )


def _work(ws: Workspace, ctx: StageContext, base: str, adapter_id: str) -> StageOutput:
    from registry.adapters import adapter_path
    from registry.hashing import file_digest
    from registry.merge import merge_adapter

    loaded = ws.models.get(base)
    parents = [Parent(ctx.run_id, "run"), Parent(adapter_id, "adapter")]
    with ws.store.draft() as draft, ctx.ui.progress(f"merge · {adapter_id[:8]} into {base}"):
        parity = merge_adapter(loaded, adapter_path(ws.store, adapter_id), draft)
        files = sorted(path for path in draft.iterdir() if path.is_file())
        size = sum(path.stat().st_size for path in files)
        identity = {
            "base": loaded.identity.digest,
            "adapter": adapter_id,
            "files": {path.name: file_digest(path) for path in files},
        }
        meta = {"base": base, "adapter_id": adapter_id, "dtype": parity.dtype, "bytes": size}
        model = ws.store.put("model", draft, identity=identity, parents=parents, meta=meta)
    result = {
        "adapter_id": adapter_id,
        "base": base,
        "path": model.path.relative_to(ws.root).as_posix(),
        "bytes": size,
        **asdict(parity),
    }
    made = ws.store.put(
        "merge",
        None,
        identity={"model": model.id, "adapter": adapter_id, "method": "add to base"},
        parents=[*parents, Parent(model.id, "model")],
        meta={**result, "scale": 1.0, "max_difference": max(parity.merged, parity.reloaded)},
    )
    return StageOutput(result, [("model", model), ("merge", made)])


def _base_of(ws: Workspace, adapter_id: str) -> str:
    """Return the name in the spec of the base that an adapter was trained on."""
    adapter = ws.catalog.manifest(adapter_id)
    wanted = adapter["identity"]["base"]
    named = str(adapter["meta"].get("base", ""))
    for name in sorted(ws.spec.bases, key=lambda name: name != named):  # its own name first
        if ws.models.identity(name).digest == wanted:
            return name
    raise UserError(
        f"the base of adapter {adapter_id[:12]} ('{named}') is not in the spec as it was",
        where="bases",
        expected="the same weights, tokenizer, template and dtype",
    )
