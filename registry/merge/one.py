"""The merge of one LoRA adapter into its base, refused unless the logits stay the same.

The merged weight is computed in float64 from the adapter's file and rounded once. The reference
is PEFT's own forward with the adapter on, so the two check each other: in logits, and module by
module in float64.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.merge.changes import parameters_of, read_changes, refuse_unmergeable
from registry.merge.proof import check_merged, check_saved, refuse_unlike_peft
from registry.merge.quantised import bound_of, dequantised, is_quantised, measured
from registry.merge.routes import routed_logits, same_routes
from registry.merge.weights import (
    Targets,
    kept_as_loaded,
    merged_weights,
    save_merged,
    written_by,
)
from registry.models.parity import (
    BOUNDS,
    ON,
    Parity,
    distance,
    logits_of,
    prompt_tokens,
    refuse_beyond,
)
from registry.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor

    from registry.merge.quantised import QuantisedDistances
    from registry.merge.weights import LoadedBase
    from registry.models.load import LoadedModel
    from registry.models.parity import Logits

CHOSEN = "with its choice of experts"
ON_QUANTISED = "the quantised base with the adapter on, by PEFT"
"""The reference of a merge into a quantised base."""

_SIDE = re.compile(r"\.(lora_\w+|weight|bias)(\..*)?$")  # of a module, in an adapter's file


@dataclass(frozen=True)
class MergeResult:
    """An adapter in its base: the proof, and of a quantised base, what other ways would give."""

    parity: Parity
    quantised: QuantisedDistances | None = None


@dataclass(frozen=True)
class MergedModel:
    """A merged model that is saved and proven: its weights, and its logits on the prompts.

    `adapter` is the one that does to the base what the merge did, where there is one.
    """

    targets: Targets
    merged: dict[str, Tensor]
    after: Logits
    reloaded: Logits
    parity: Parity
    adapter: Path | None


def merge_adapter(
    loaded: LoadedModel,
    adapter: Path,
    out: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> MergeResult:
    """Write `loaded` with the adapter merged into its weights to the folder `out`, and prove it.

    `out` gets safetensors in the dtype that the base is computed in, config, generation config,
    tokenizer and chat template. `loaded` is left as it was. A quantised base is dequantised.
    `advance` is told how many tensors were dealt with; `tensors_to_merge` are there.

    Raises:
        UserError: the adapter is of a kind that isn't merged.
        GateRefusedError: the logits, or a reloaded weight, are not those of base + adapter.
    """
    refuse_unmergeable(adapter)
    with quiet_libraries():
        if is_quantised(loaded):
            return merge_quantised(loaded, lambda: _write(loaded, adapter, out, advance))
        return MergeResult(_write(loaded, adapter, out, advance).parity)


def tensors_to_merge(loaded: LoadedModel, adapters: Iterable[Path]) -> int:
    """Return about how many tensors are dealt with until adapters are merged and saved.

    Every changed one is held against PEFT and then rounded, and all that are saved are read back.
    """
    changed = [{_SIDE.sub("", name) for name in written_by(adapter)} for adapter in adapters]
    saved = len(parameters_of(loaded.model))  # of one with two names, each is looked at
    return sum(map(len, changed)) + len(set().union(*changed)) + saved


def merge_quantised(loaded: LoadedModel, write: Callable[[], MergedModel]) -> MergeResult:
    """Merge into the dequantised base, and hold that and other ways against what was trained.

    What was trained is the quantised base with the adapter on that `write` names; without one, the
    proof is that of the dequantised base.

    Args:
        loaded: the quantised base.
        write: writes and proves the merged model; called while the base is a plain one.

    Raises:
        GateRefusedError: what was merged into the dequantised base is too far from it.
    """
    tokens, bound = prompt_tokens(loaded), bound_of(loaded)
    with dequantised(loaded):
        done = write()
    if done.adapter is None:
        said = f"{done.parity.reference}, dequantised"
        return MergeResult(replace(done.parity, reference=said))
    with kept_as_loaded(loaded, [done.adapter]):
        plain = logits_of(loaded.model, tokens)
        loaded.use(done.adapter)
        trained, routes = routed_logits(loaded)
    with dequantised(loaded) as quantised:
        after = done.after
        if routes:
            with same_routes(loaded, routes):
                after = logits_of(loaded.model, tokens, done.merged)
        ways = measured(loaded, quantised, done.merged, done.targets, trained, after, tokens, bound)
    refuse_beyond(bound, ways.dequantised, "against the quantised base with the adapter on", [])
    parity = replace(
        done.parity,
        bound=bound,
        merged=ways.dequantised,
        # Read again it chooses experts for itself: held against the merged weights, not the base.
        reloaded=done.parity.reloaded if routes else distance(trained, done.reloaded),
        moved=distance(trained, plain),
        reference=f"{ON_QUANTISED}, {CHOSEN}" if routes else ON_QUANTISED,
    )
    return MergeResult(parity, ways)


def write_merged(
    loaded: LoadedModel,
    targets: Targets,
    out: Path,
    plain: Logits,
    reference: Logits,
    said: str,
    adapter: Path | None,
) -> MergedModel:
    """Save the targets, rounded once, as a model in `out`, and hold it against `reference`.

    Raises:
        UserError: tied weights would have to differ, and the model's config can't say so.
        GateRefusedError: beyond the bound of the dtype, in memory or in a new process.
    """
    tokens = prompt_tokens(loaded)
    merged = merged_weights(targets)
    after = check_merged(loaded, merged, targets, reference, tokens)
    save_merged(loaded, merged, out)
    # Read again it chooses experts for itself, and so does what it is held against.
    freely = logits_of(loaded.model, tokens, merged) if targets.routes else reference
    reloaded = check_saved(loaded, merged, out, freely, tokens, targets.advance)
    parity = Parity(
        dtype=loaded.identity.dtype,
        bound=BOUNDS[loaded.identity.dtype],
        merged=distance(reference, after),
        reloaded=distance(freely, reloaded),
        moved=distance(reference, plain),
        positions=len(reference),
        reference=f"{said}, {CHOSEN}" if targets.routes else said,
        untied=bool(targets.parted()),
    )
    return MergedModel(targets, merged, after, reloaded, parity, adapter)


def targets_of(loaded: LoadedModel, adapter: Path, kept: LoadedBase) -> tuple[Targets, Logits]:
    """Return what each parameter should become, and the logits with the adapter on, by PEFT.

    Raises:
        UserError: the adapter holds something that isn't a change of a parameter of this base.
        GateRefusedError: a module by PEFT does not what these targets do; names the modules.
    """
    loaded.use(adapter)
    reference, routes = routed_logits(loaded)
    changes = read_changes(loaded, adapter, kept.base)
    refuse_unlike_peft(loaded, adapter, changes, kept.base, kept.advance)
    kept.alone()
    rules = {name: change.apply for name, change in changes.items()}
    return Targets(kept, rules, routes=routes), reference


def _write(
    loaded: LoadedModel, adapter: Path, out: Path, advance: Callable[[int], None]
) -> MergedModel:
    with kept_as_loaded(loaded, [adapter], advance) as kept:
        plain = logits_of(loaded.model, prompt_tokens(loaded))
        targets, reference = targets_of(loaded, adapter, kept)
        return write_merged(loaded, targets, out, plain, reference, ON, adapter)
