"""The distance of two LoRA adapters, module by module, without their base."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from registry.models.files import holds_changed
from registry.store.filenames import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

_ALPHA = 8  # PEFT's, where a configuration has none
_DOWN = re.compile(r"(.+)\.(lora|lora_embedding)_A(\.weight|)")
Pairs = dict[str, tuple["torch.Tensor", "torch.Tensor"]]


def differences(
    a: Path, a_config: Mapping[str, Any], b: Path, b_config: Mapping[str, Any]
) -> dict[str, float]:
    """Return module -> |delta_b - delta_a| / |delta_a|, in Frobenius norms.

    A delta is that of a module's weight (embeddings too) and of its bias, where LoRA has one. Left
    out are modules that only one of them has, those whose shapes differ, those with DoRA, whose
    delta depends on the base, and those whose parameters are targeted one by one
    (target_parameters), whose factors hold several deltas. The norms come from the small products
    of the factors, so that no delta is ever made.
    """
    if holds_changed(a) or holds_changed(b):
        return {}  # a difference from the base's own values, which aren't here
    first, second = _pairs(a, a_config), _pairs(b, b_config)
    found = {}
    for module in sorted(first.keys() & second.keys()):
        (up, down), (other_up, other_down) = first[module], second[module]
        if up.shape[0] != other_up.shape[0] or down.shape[1] != other_down.shape[1]:
            continue
        size = _inner(up, down, up, down)
        apart = size + _inner(other_up, other_down, other_up, other_down)
        apart -= 2 * _inner(up, down, other_up, other_down)
        found[module] = math.sqrt(max(apart, 0.0) / size) if size else math.inf
    return found


def _inner(up: torch.Tensor, down: torch.Tensor, up_2: torch.Tensor, down_2: torch.Tensor) -> float:
    """The inner product of two deltas: trace((B A)' B2 A2) = sum((B' B2) * (A A2'))."""
    return float(((up.T @ up_2) * (down @ down_2.T)).sum())


def _pairs(folder: Path, config: Mapping[str, Any]) -> Pairs:
    """Module -> (B scaled, A), in float64; a bias is one more column of B."""
    import torch
    from safetensors.torch import load_file

    if config.get("use_dora"):
        return {}
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    inside = tuple(one.rpartition(".")[0] for one in config.get("target_parameters") or ())
    pairs: Pairs = {}
    for name, tensor in tensors.items():
        found = _DOWN.fullmatch(name)
        if found is None:
            continue
        start, kind, end = found.groups()
        up = tensors.get(f"{start}.{kind}_B{end}")
        dora = f"{start}.lora_magnitude_vector"
        if up is None or dora in tensors or f"{dora}.weight" in tensors:
            continue
        module = start.removeprefix("base_model.model.")
        if module.removesuffix(".base_layer").endswith(inside):
            continue
        scale = _scale(module, tensor.shape[0], config)
        up, down = up.double().flatten(1), tensor.double().flatten(1)
        bias = tensors.get(f"{start}.lora_B.bias")
        if bias is not None:
            up = torch.cat([up, bias.double()[:, None]], 1)
            down = torch.block_diag(down, torch.ones(1, 1, dtype=down.dtype))
        pairs[module] = (up * scale, down)
    return pairs


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """What PEFT multiplies a module's delta by; its rank is its own, whatever r is."""
    patterns = config.get("alpha_pattern") or {}
    # The first that fits counts, as in PEFT's get_pattern_key.
    fitting = (key for key in patterns if re.match(rf"(.*\.)?({key})$", module))
    alpha = patterns.get(next(fitting, None), config.get("lora_alpha", _ALPHA))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
