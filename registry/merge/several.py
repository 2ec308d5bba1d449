"""The merge of several adapters of one base: one model, and one adapter where it is LoRA again.

What every adapter does to every parameter is read in float64 and held against PEFT, one adapter at
a time. The rule of the method (`registry/merge/rules.py`) makes one target a parameter of it. Of
two adapters with deltas [2, 1] and [-1, 3] and weights of 1, at density 1,

    linear, cat  [1, 4]   the weighted sum: task arithmetic (Ilharco et al. 2022)
    ties         [2, 2]   of each entry the sign of the sum, then the mean of those that have it
                          (Yadav et al. 2023)
    dare_linear  [1, 4]   in expectation: entries are dropped at random, the rest scaled up
                          (Yu et al. 2023); dare_ties elects the signs of those
    slerp                 the point on the arc between the two merged weights (Shoemake 1985)

`cat`, `linear` and `svd` are LoRA again: the sum of B_i A_i is exactly [B_1 B_2] [A_1; A_2], of
rank r_1 + r_2; `svd` cuts it to a rank and reports what that lost.

The proof: the reference of the merged model is the base with every changed module computed in
float64 from its unrounded target; the new adapter, put on by PEFT, is held against the same. Each
target is computed when it is asked for, so that memory holds the base, the factors and one
parameter in float64.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from registry.errors import GateRefusedError, SpecError
from registry.merge.as_adapter import as_lora, write_adapter
from registry.merge.changes import read_changes, refuse_unmergeable
from registry.merge.one import MergeResult, merge_quantised, write_merged
from registry.merge.proof import on_target, refuse_unlike_peft
from registry.merge.quantised import dequantised, is_quantised
from registry.merge.routes import routed_logits, same_routes
from registry.merge.rules import dropped, elect, slerp, ties, weighted_sum
from registry.merge.spec import checked, weights_of
from registry.merge.weights import Targets, kept_as_loaded, merged_weights, save_merged
from registry.models.parity import BOUNDS, distance, logits_of, prompt_tokens, refuse_beyond
from registry.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from registry.merge.as_adapter import LoraFactors
    from registry.merge.changes import Changes, ParameterChange
    from registry.merge.one import MergedModel
    from registry.merge.quantised import QuantisedDistances
    from registry.merge.spec import MergeSpec
    from registry.merge.weights import LoadedBase
    from registry.models.load import LoadedModel
    from registry.models.parity import Logits, Parity

SUM = "the base with the weighted sum of the deltas in float64"
REFERENCES = {
    "cat": SUM,
    "linear": SUM,
    "svd": f"{SUM}, cut to the rank",
    "slerp": "the base with the weights on the arc between the two merged models in float64",
}
RULE = "the base with the method's delta in float64"
_ROUNDED = 1e-4  # of a delta: what float32 factors may be off


@dataclass(frozen=True)
class SeveralMerged:
    """What merging several adapters came to.

    Attributes:
        method: how.
        weights: of each adapter, in order.
        density: the share of every delta that was kept; None where the method has none.
        seed: what was drawn by; None where nothing is drawn.
        rank: of the new adapter; None where there is none.
        relative_error: what the cut to a rank lost of the sum of deltas, |lost| / |sum| over all
            weights that were cut; None where the method has no rank.
        cut: what that loss does to the logits, over the largest logit; None likewise.
        adapter: how far the new adapter, put on by PEFT, is from the reference; None without one.
        no_adapter: why there is no new adapter; None where there is one.
        parity: the proof of the merged model.
        quantised: of a quantised base, what other ways to merge would give.
    """

    method: str
    weights: tuple[float, ...]
    density: float | None
    seed: int | None
    rank: int | None
    relative_error: float | None
    cut: float | None
    adapter: float | None
    no_adapter: str | None
    parity: Parity
    quantised: QuantisedDistances | None = None


@dataclass(frozen=True)
class _Plan:
    """The target of every parameter, and the factors of its delta."""

    targets: Targets
    sums: Targets  # of the whole sum, before a cut
    lora: LoraFactors


def merge_adapters(
    loaded: LoadedModel,
    adapters: Sequence[Path],
    spec: MergeSpec,
    out: Path,
    adapter_out: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> SeveralMerged:
    """Write `loaded` with the adapters merged into it to `out`, and prove it.

    Args:
        loaded: their base; it is left as it was. Quantised, it is dequantised.
        adapters: their folders.
        spec: the method with its weights, density, rank and seed; no search.
        out: where the merged model goes.
        adapter_out: where the new adapter goes; nothing does where `no_adapter` says why.
        advance: told how many tensors were dealt with; `tensors_to_merge` are there.

    Raises:
        UserError: the settings don't fit, or an adapter is of a kind that isn't merged.
        GateRefusedError: the model, or the new adapter, doesn't answer as the reference.
    """
    checked(spec, len(adapters))
    if spec.rule is not None:
        raise SpecError(f"{spec.method} is merged by registry.merge.mergekit")
    for adapter in adapters:
        refuse_unmergeable(adapter)
    work = _SeveralMerge(loaded, adapters, spec, out, adapter_out, advance)
    with quiet_libraries():
        if is_quantised(loaded):
            merged = merge_quantised(loaded, work.write)
        else:
            merged = MergeResult(work.write().parity)
    return work.report(merged)


@contextmanager
def candidates(
    loaded: LoadedModel, adapters: Sequence[Path]
) -> Iterator[Callable[[MergeSpec, Path], None]]:
    """Give a function that saves the merge of a spec to a folder, to be scored: without proof.

    Raises:
        UserError, GateRefusedError: as `merge_adapters`, of the adapters alone.
    """
    for adapter in adapters:
        refuse_unmergeable(adapter)
    plain = dequantised(loaded) if is_quantised(loaded) else nullcontext()
    with quiet_libraries(), plain, kept_as_loaded(loaded, adapters) as kept:
        changes = [_changes(loaded, adapter, kept) for adapter in adapters]

        def save(spec: MergeSpec, out: Path) -> None:
            plan = _plan(spec, weights_of(spec, len(adapters)), changes, kept)
            save_merged(loaded, merged_weights(plan.targets), out)

        yield save


class _SeveralMerge:
    """One merge of several adapters, with what is known of it once it is written."""

    def __init__(
        self,
        loaded: LoadedModel,
        adapters: Sequence[Path],
        spec: MergeSpec,
        out: Path,
        adapter_out: Path,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.loaded, self.adapters, self.spec = loaded, adapters, spec
        self.out, self.adapter_out, self.advance = out, adapter_out, advance
        self.weights = weights_of(spec, len(adapters))
        self.lora: LoraFactors | None = None
        self.cut: float | None = None
        self.adapter: float | None = None

    def write(self) -> MergedModel:
        """Write and prove the merged model and the new adapter."""
        loaded, tokens = self.loaded, prompt_tokens(self.loaded)
        with kept_as_loaded(loaded, self.adapters, self.advance) as kept:
            plain = logits_of(loaded.model, tokens)
            changes = [_changes(loaded, adapter, kept) for adapter in self.adapters]
            plan = _plan(self.spec, self.weights, changes, kept)
            with on_target(loaded, plan.targets):
                reference, plan.targets.routes = routed_logits(loaded)
            if self.spec.method == "svd":
                with on_target(loaded, plan.sums):
                    self.cut = distance(logits_of(loaded.model, tokens), reference)
            self.lora, made = plan.lora, plan.lora.no_adapter is None
            if made:
                first = self.adapters[0]
                write_adapter(plan.lora, loaded.model, first, self.adapter_out, kept.base)
                self.adapter = self._check_adapter(kept, plan.targets, reference)
            said = REFERENCES.get(self.spec.method, RULE)
            return write_merged(
                *(loaded, plan.targets, self.out, plain, reference, said),
                adapter=self.adapter_out if made else None,
            )

    def report(self, merged: MergeResult) -> SeveralMerged:
        """Return what it came to."""
        spec, lora = self.spec, self.lora
        made = lora is not None and lora.no_adapter is None
        cut = lora is not None and spec.method == "svd"
        return SeveralMerged(
            method=spec.method,
            weights=self.weights,
            density=spec.kept,
            seed=spec.drawn_by,
            rank=lora.rank if lora and made else None,
            relative_error=lora.relative_error if lora and cut else None,
            cut=self.cut,
            adapter=self.adapter,
            no_adapter=lora.no_adapter if lora else None,
            parity=merged.parity,
            quantised=merged.quantised,
        )

    def _check_adapter(self, kept: LoadedBase, targets: Targets, reference: Logits) -> float:
        """Return how far the new adapter is from `reference`.

        Raises:
            GateRefusedError: beyond the bound, or a module's delta isn't the target's.
        """
        loaded = self.loaded
        loaded.use(self.adapter_out)
        with same_routes(loaded, targets.routes):
            found = distance(reference, logits_of(loaded.model, prompt_tokens(loaded)))
        changes = read_changes(loaded, self.adapter_out, kept.base)
        kept.alone()
        if odd := sorted(set(changes) ^ set(targets.names)):
            raise GateRefusedError(f"merge refused: the new adapter misses {odd[0]}")
        wrong = [
            name.removesuffix(".weight")
            for name, change in changes.items()
            if not _near(targets[name], change.apply(kept.base[name]), kept.base[name])
        ]
        refuse_beyond(BOUNDS[loaded.identity.dtype], found, "with the new adapter on", wrong)
        return found


def _changes(loaded: LoadedModel, adapter: Path, kept: LoadedBase) -> Changes:
    """Return what one adapter does, after it was held against PEFT."""
    loaded.use(adapter)
    changes = read_changes(loaded, adapter, kept.base)
    refuse_unlike_peft(loaded, adapter, changes, kept.base, kept.advance)
    kept.alone()
    return changes


def _plan(
    spec: MergeSpec, weights: Sequence[float], changes: Sequence[Changes], kept: LoadedBase
) -> _Plan:
    lora = as_lora(spec, weights, changes, kept.base)
    sums: dict[str, Callable[[Tensor], Tensor]] = {}
    rules: dict[str, Callable[[Tensor], Tensor]] = {}
    seeds = {name: group[0] for group in kept.ties for name in group}
    for name in dict.fromkeys(name for one in changes for name in one):
        parts = [one.get(name) for one in changes]
        sums[name] = partial(_sum, parts, weights)
        rules[name] = partial(_ruled, spec, parts, weights, seeds.get(name, name))
        if spec.method == "svd" and name in lora.factors:
            rules[name] = partial(_cut, lora, name)
    return _Plan(Targets(kept, rules), Targets(kept, sums, limit=0), lora)


def _ruled(
    spec: MergeSpec,
    parts: Sequence[ParameterChange | None],
    weights: Sequence[float],
    name: str,
    weight: Tensor,
) -> Tensor:
    """Return the target of one parameter by the rule of the method."""
    near = weight.double()
    if spec.method == "slerp":
        first, second = (near if part is None else part.apply(weight) for part in parts)
        return slerp(first, second, weights[1] / sum(weights))
    if spec.kept is None:
        return _sum(parts, weights, weight)
    deltas = _deltas(parts, weight)
    if spec.method == "ties":
        return near + ties(deltas, weights, spec.kept)
    thinned = dropped(deltas, spec.kept, spec.seed, name)
    rule = elect if spec.method == "dare_ties" else weighted_sum
    return near + rule(thinned, weights)


def _sum(
    parts: Sequence[ParameterChange | None], weights: Sequence[float], weight: Tensor
) -> Tensor:
    return weight.double() + weighted_sum(_deltas(parts, weight), weights)


def _cut(lora: LoraFactors, name: str, weight: Tensor) -> Tensor:
    return weight.double() + lora.delta(name).to(weight.device)


def _deltas(parts: Sequence[ParameterChange | None], weight: Tensor) -> list[Tensor]:
    near = weight.double()
    return [near * 0 if part is None else part.apply(weight) - near for part in parts]


def _near(wanted: Tensor, found: Tensor, base: Tensor) -> bool:
    size = float((wanted - base.double()).abs().max())
    return float((wanted - found).abs().max()) <= _ROUNDED * size
