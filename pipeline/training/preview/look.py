"""The look at a run before its first step: what is wrong, what is odd, what it will take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.training import compute
from pipeline.training.examples.encode import TrainingRow
from pipeline.training.examples.packing import families
from pipeline.training.losses.objective import Objective, encode, plan
from pipeline.training.preview.dry_run import DryRun, dry_run
from pipeline.training.preview.estimate import flattened
from pipeline.training.preview.preflight import Preflight, preflight
from pipeline.training.preview.recompute import with_recompute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.spec.train import TrainSpec
    from pipeline.training.examples.packing import PackedBatch
    from registry.models.load import LoadedModel


def look(loaded: LoadedModel, rows: Sequence[Any], spec: TrainSpec) -> DryRun:
    """Return what `train --dry-run` shows; nothing is trained.

    Args:
        loaded: the base.
        rows: what would be trained on.
        spec: how.

    Raises:
        UserError: what would stop the run before its first step.
    """
    spec = spec.on_base(loaded.identity.width)
    encoded = encode(loaded, rows, spec, allow_rejects=spec.allow_rejects)
    loaded.use(None)
    with compute.computed_in(loaded, spec.dtype):
        longest = max(row.tokens for part in encoded.objective.parts for row in part)
        packs = compute.why_not_packed(loaded, longest) is None
        share = packs and compute.shares_prompts(loaded)
    laid = plan(encoded.objective, spec, share=share)
    spec = with_recompute(loaded, encoded.objective, laid, spec, share=share)
    flat, batches = flattened(encoded.objective.parts, laid)
    found = checked(loaded, rows, encoded.objective, laid, spec, share=share)
    return dry_run(loaded, flat, encoded.rejects, batches, spec, found)


def checked(
    loaded: LoadedModel,
    rows: Sequence[Any],
    objective: Objective,
    laid: Sequence[PackedBatch],
    spec: TrainSpec,
    *,
    share: bool,
) -> Preflight:
    """Check a run that is encoded and laid out; see `preflight`."""
    flat, batches = flattened(objective.parts, laid)
    texts = [row for row in rows if isinstance(row, TrainingRow)]
    shared = families(flat) if share else ()
    return preflight(loaded, texts, flat, batches, spec, shared=shared)
