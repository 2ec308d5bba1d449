"""How far two LoRA adapters are apart, module by module, without their base."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from registry.adapters import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

Pairs = dict[str, tuple["torch.Tensor", "torch.Tensor"]]


def differences(
    a: Path, a_config: Mapping[str, Any], b: Path, b_config: Mapping[str, Any]
) -> dict[str, float]:
    """Return module -> |delta_b - delta_a| / |delta_a|, in Frobenius norms.

    Modules that only one of them has, and those whose shapes differ, are left out. The norms come
    from the small products of the factors, so that no delta is ever made.
    """
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
    """Module -> (B scaled, A), in float64."""
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    rank = float(config.get("r") or 1)
    scale = float(config.get("lora_alpha") or rank)
    scale /= math.sqrt(rank) if config.get("use_rslora") else rank
    pairs: Pairs = {}
    for name, tensor in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            up = tensors.get(name.replace(".lora_A.", ".lora_B."))
            if up is not None:
                pairs[module] = (up.double() * scale, tensor.double())
    return pairs
