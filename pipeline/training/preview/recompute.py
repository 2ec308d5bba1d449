"""Whether activations are recomputed: where memory would not be enough for keeping them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.training.examples.packing import families
from pipeline.training.machine import processes
from pipeline.training.machine.free_memory import free_memory
from pipeline.training.machine.rates import Rates
from pipeline.training.preview.estimate import flattened
from pipeline.training.preview.preflight import estimated, needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.spec.train import TrainSpec
    from pipeline.training.examples.packing import PackedBatch
    from pipeline.training.losses.objective import Objective
    from registry.models.load import LoadedModel

_UNTIMED = Rates(1.0, 1.0)  # memory alone is asked for


def with_recompute(
    loaded: LoadedModel,
    objective: Objective,
    laid: Sequence[PackedBatch],
    spec: TrainSpec,
    *,
    share: bool,
) -> TrainSpec:
    """Return the spec with `activation_checkpointing` true or false, the same in all processes.

    Raises:
        UserError: a target, rank or number of layers that the base can't have.
    """
    wanted = spec.activation_checkpointing
    if wanted is None:
        wanted = processes.is_first() and _is_short(loaded, objective, laid, spec, share=share)
        if processes.count() > 1:
            on_cpu = loaded.device.type == "cpu"
            told = processes.broadcast({"recompute": wanted}, on_cpu=on_cpu)
            wanted = bool(told and told["recompute"])
    return spec.model_copy(update={"activation_checkpointing": wanted})


def _is_short(
    loaded: LoadedModel,
    objective: Objective,
    laid: Sequence[PackedBatch],
    spec: TrainSpec,
    *,
    share: bool,
) -> bool:
    free = free_memory(loaded.device)
    if free is None or not loaded.model.supports_gradient_checkpointing:
        return False
    flat, batches = flattened(objective.parts, laid)
    shared = families(flat) if share else ()
    expected, _ = estimated(loaded, flat, batches, spec, shared, rates=_UNTIMED)
    return expected is not None and needed(expected, free) > free.bytes
