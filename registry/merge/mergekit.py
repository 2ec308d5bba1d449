"""Merges by the rules of mergekit (an extra), where gapmend has none of its own.

A rule of mergekit sees one parameter at a time: the base's, and what each adapter makes of it, in
float64. What it returns is the target that is rounded, saved and proven like any other merge's. No
formula of ours stands behind the rule: the proof says that the model has mergekit's own weights.

mergekit's functions on tensors are called, not its command line: those read nothing from a disk or
the Hub, and every parameter has a seed of its own, so that draws don't hang on the order of files.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from registry.errors import GateRefusedError, ModelError
from registry.extras import require_extra
from registry.merge.changes import refuse_unmergeable
from registry.merge.one import MergeResult, merge_quantised, targets_of, write_merged
from registry.merge.proof import check_merged, on_target
from registry.merge.quantised import is_quantised
from registry.merge.routes import routed_logits
from registry.merge.several import SeveralMerged
from registry.merge.spec import MERGEKIT, checked, weights_of
from registry.merge.weights import Targets, kept_as_loaded, merged_weights
from registry.models.parity import first_of, logits_of, prompt_tokens
from registry.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from registry.merge.one import MergedModel
    from registry.merge.spec import MergeSpec, Rule
    from registry.merge.weights import LoadedBase
    from registry.models.load import LoadedModel

REFERENCE = "the base with mergekit's own weights in float64"
NO_ADAPTER = "mergekit's rules make whole weights"

_PREFIX = "mergekit:"
_EPSILON = 0.15  # mergekit's own: how far della's odds of an entry go from the density


def mergekit_version() -> str:
    """Return the version of mergekit that is installed; mergekit is not imported.

    Raises:
        UserError: there is none.
    """
    from importlib.metadata import version

    require_extra("mergekit", "method")
    return version("mergekit")


def merge_by_mergekit(
    loaded: LoadedModel,
    adapters: Sequence[Path],
    spec: MergeSpec,
    out: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> SeveralMerged:
    """Write `loaded` with the adapters merged into it by a rule of mergekit to `out`; prove it.

    Every adapter is merged alone first, and held against PEFT, module by module and in logits.

    Args:
        loaded: their base; it is left as it was. Quantised, it is dequantised.
        adapters: their folders.
        spec: the rule with its weights, density and seed.
        out: where the merged model goes.
        advance: told how many tensors were dealt with; `tensors_to_merge` are there, and once more
            those that an adapter changes.

    Raises:
        UserError: the settings don't fit, mergekit is absent or can't do it, or an adapter is of
            a kind that isn't merged.
        GateRefusedError: an adapter alone, or the model, doesn't answer as it should.
    """
    checked(spec, len(adapters))
    mergekit_version()
    for adapter in adapters:
        refuse_unmergeable(adapter)
    write = partial(_write, loaded, adapters, spec, out, advance)
    with quiet_libraries():
        merged = (
            merge_quantised(loaded, write) if is_quantised(loaded) else MergeResult(write().parity)
        )
    return SeveralMerged(
        method=spec.method,
        weights=weights_of(spec, len(adapters)),
        density=spec.kept,
        seed=spec.drawn_by,
        rank=None,
        relative_error=None,
        cut=None,
        adapter=None,
        no_adapter=NO_ADAPTER,
        parity=merged.parity,
        quantised=merged.quantised,
    )


def mergekit_targets(spec: MergeSpec, parts: Sequence[Targets], kept: LoadedBase) -> Targets:
    """Return what mergekit's rule makes of every parameter that an adapter changes.

    Args:
        spec: the rule and its settings.
        parts: what each adapter alone makes of the base.
        kept: the base.
    """
    # Names of one parameter draw alike, so that they stay one.
    drawn_as = {name: group[0] for group in kept.ties for name in group}
    names = dict.fromkeys(name for part in parts for name in part.names)
    rules = {name: partial(_ruled, spec, parts, name, drawn_as.get(name, name)) for name in names}
    return Targets(kept, rules)


def _write(
    loaded: LoadedModel,
    adapters: Sequence[Path],
    spec: MergeSpec,
    out: Path,
    advance: Callable[[int], None],
) -> MergedModel:
    tokens = prompt_tokens(loaded)
    with kept_as_loaded(loaded, adapters, advance) as kept:
        plain = logits_of(loaded.model, tokens)
        parts = [_alone(loaded, adapter, kept) for adapter in adapters]
        targets = mergekit_targets(spec, parts, kept)
        _refuse_infinite(spec, targets)
        with on_target(loaded, targets):
            reference, targets.routes = routed_logits(loaded)
        return write_merged(loaded, targets, out, plain, reference, REFERENCE, adapter=None)


def _alone(loaded: LoadedModel, adapter: Path, kept: LoadedBase) -> Targets:
    """Return what one adapter makes of the base, after that was merged and held against PEFT."""
    targets, by_peft = targets_of(loaded, adapter, kept)
    check_merged(loaded, merged_weights(targets), targets, by_peft, prompt_tokens(loaded))
    return targets


def _ruled(
    spec: MergeSpec, parts: Sequence[Targets], name: str, drawn_as: str, weight: Tensor
) -> Tensor:
    """Return mergekit's value of one parameter, in float64 on the device of `weight`."""
    from mergekit import merge_methods

    near = weight.double().cpu()
    made = [part.on(name, weight).cpu() if name in part.names else near for part in parts]
    rule = MERGEKIT[spec.method]
    given = [near, *made] if rule.over_base else made
    with _seeded(f"{spec.seed}/{drawn_as}"):
        try:
            merged: Tensor = merge_methods.merge_tensors(
                given,
                spec.method.removeprefix(_PREFIX),
                parameters=_parameters(spec, rule, len(parts)),
                base_index=0 if rule.over_base else None,
                name=name,
            )
        except (RuntimeError, ValueError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(f"{spec.method} can't merge {name}: {said}", "method") from error
    return merged.double().to(weight.device)


def _parameters(spec: MergeSpec, rule: Rule, adapters: int) -> dict[str, Any]:
    """Return the settings by mergekit's names; what it reads with the base begins after it."""
    found: dict[str, Any] = {}
    if rule.weighted:
        found["weight"] = dict(enumerate(weights_of(spec, adapters), start=1))
    if rule.density is not None and spec.kept is not None:
        found[rule.density] = spec.kept
        if spec.method.startswith("mergekit:della"):
            # Odds have to stay between 0 and 1, or mergekit refuses.
            found["epsilon"] = min(_EPSILON, spec.kept / 2, (1 - spec.kept) / 2)
    return found


@contextmanager
def _seeded(key: str) -> Iterator[None]:
    """Seed what mergekit draws by, torch's own generator, and put it back when the body ends."""
    import torch

    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
    try:
        yield
    finally:
        generator.set_state(state)


def _refuse_infinite(spec: MergeSpec, targets: Targets) -> None:
    wrong = [
        name.removesuffix(".weight")
        for name in targets.names
        if not bool(targets.rounded(name).isfinite().all())
    ]
    if wrong:
        raise GateRefusedError(
            f"merge refused: {spec.method} makes values that aren't finite in {first_of(wrong)}"
        )
