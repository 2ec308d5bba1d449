"""The weights of a merge, searched on dev by the scores of the capabilities."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from pipeline.measure.measure import items_of, measure
from pipeline.spec.subjects import subjects
from registry.merge.spec import trials, weights_of
from registry.models.base import BaseSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.workspace.resolved import Resolved
    from pipeline.workspace.stage import StageContext
    from registry.merge.spec import MergeSpec
    from registry.models.load import LoadedModel

_CANDIDATE = "candidate"


def search(
    ws: Resolved,
    ctx: StageContext,
    loaded: LoadedModel,
    adapters: Sequence[Path],
    spec: MergeSpec,
) -> tuple[MergeSpec, list[dict[str, Any]]]:
    """Return `spec` with the weights of the best mean score on dev, and all that were tried.

    Every candidate is merged, saved and measured as a base of its own, so that what was scored is
    found again by the digest of its weights. The first of equals wins.
    """
    from registry.merge.several import candidates

    found: dict[tuple[float, ...], float] = {}
    with candidates(loaded, adapters) as save:

        def score(weights: tuple[float, ...]) -> tuple[float, ...]:
            """Score these weights and return the best so far."""
            if weights not in found:
                folder = ctx.workdir / _CANDIDATE
                shutil.rmtree(folder, ignore_errors=True)
                save(spec.model_copy(update={"weights": weights}), folder)
                found[weights] = _mean_score(ws, ctx, folder, loaded)
                shutil.rmtree(folder)
            return max(found, key=lambda tried: found[tried])

        best = score(weights_of(spec.model_copy(update={"weights": None}), len(adapters)))
        steps = trials(spec, best)
        tried = next(steps, None)
        while tried is not None:
            best = score(tried)
            try:
                tried = steps.send(best)
            except StopIteration:
                tried = None
    scores = [{"weights": list(weights), "score": score} for weights, score in found.items()]
    return spec.model_copy(update={"weights": best}), scores


def _mean_score(ws: Resolved, ctx: StageContext, folder: Path, loaded: LoadedModel) -> float:
    """Return the mean of the capabilities' scores on dev with the model in `folder`."""
    candidate = BaseSpec(model=str(folder), dtype=loaded.identity.dtype)
    spec = ws.spec.model_copy(update={"bases": {**ws.spec.bases, _CANDIDATE: candidate}})
    there = ws.with_spec(spec)
    means = []
    for what in subjects(there.spec):
        if what.role == "capability":
            items = items_of(there, what, "dev")
            result = measure(there, ctx.ui, what, base=_CANDIDATE, items=items, split="dev")
            means.append(result.mean)
    return sum(means) / len(means)
