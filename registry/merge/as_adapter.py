"""The result of a merge as one new LoRA adapter: the factors of each delta, and PEFT's files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.merge.changes import LowRank
from registry.merge.rules import compressed, factored, stacked, weighted_sum
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from registry.merge.changes import Changes, ParameterChange
    from registry.merge.rules import Factors
    from registry.merge.spec import MergeSpec

LORA_AGAIN = ("cat", "linear", "svd")
"""The methods whose result is LoRA again."""


@dataclass(frozen=True)
class LoraFactors:
    """Changed parameter -> its new factors, and why they are no adapter, where they are none."""

    factors: dict[str, Factors]
    flips: dict[str, bool]
    no_adapter: str | None

    @property
    def rank(self) -> int:
        """The rank of the new adapter: the highest of its modules'."""
        return max(found.a.shape[0] for found in self.factors.values())

    @property
    def relative_error(self) -> float:
        """What the cut lost, |lost| / |sum|, over all parameters that are cut."""
        size = math.sqrt(sum(found.size**2 for found in self.factors.values()))
        lost = math.sqrt(sum((found.error * found.size) ** 2 for found in self.factors.values()))
        return lost / size if size else 0.0

    def delta(self, name: str) -> Tensor:
        """Return B A of one parameter, as it is stored."""
        found = self.factors[name]
        delta = found.b @ found.a
        return delta.T if self.flips[name] else delta


def as_lora(
    spec: MergeSpec,
    weights: Sequence[float],
    changes: Sequence[Changes],
    base: Mapping[str, Tensor],
) -> LoraFactors:
    """Return the weighted sum of the deltas as factors, parameter by parameter.

    `cat` stacks them, `linear` writes the same sum at its own rank, `svd` cuts it to the rank
    chosen (without one, to the highest of the adapters').
    """
    if spec.method not in LORA_AGAIN:
        return LoraFactors({}, {}, f"what {spec.method} leaves of a delta has no low rank")
    highest = max(
        (c.a.shape[0] for one in changes for c in one.values() if isinstance(c, LowRank)), default=1
    )
    rank, why = spec.rank or highest, None
    factors: dict[str, Factors] = {}
    flips: dict[str, bool] = {}
    for name in dict.fromkeys(name for one in changes for name in one):
        parts = [(one.get(name), w) for one, w in zip(changes, weights, strict=True)]
        low = [(part, w) for part, w in parts if isinstance(part, LowRank)]
        if len(low) < sum(part is not None for part, _ in parts):
            why = why or f"{name} is changed by more than B A"
        elif spec.method != "svd" and any(part.magnitude is not None for part, _ in low):
            why = why or f"{name} has DoRA's magnitudes, and its delta no low rank"
        else:
            factors[name] = _factors(spec, rank, low, base[name])
            flips[name] = low[0][0].flip
    return LoraFactors(factors, flips, why)


def write_adapter(
    lora: LoraFactors, model: Any, first: Path, folder: Path, base: Mapping[str, Tensor]
) -> None:
    """Write the factors as a PEFT adapter whose scaling is 1; `first` is one of those merged.

    Modules of a lower rank than the highest are filled up with zeros, which change nothing.
    """
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, found in lora.factors.items():
        module = name.removesuffix(".weight")
        more = lora.rank - found.a.shape[0]
        a = torch.nn.functional.pad(found.a, (0, 0, 0, more)).float().cpu().contiguous()
        b = torch.nn.functional.pad(found.b, (0, more)).float().cpu().contiguous()
        embedding = isinstance(model.get_submodule(module), torch.nn.Embedding)
        keys = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        end = "" if embedding else ".weight"
        for key, tensor in zip(keys, (a, b), strict=True):
            tensors[f"base_model.model.{module}.{key}{end}"] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    modules = [name.removesuffix(".weight") for name in lora.factors]
    config = json.loads((first / ADAPTER_CONFIG).read_text(encoding="utf-8")) | _plain(lora.rank)
    config["target_modules"] = _targets(modules, base)
    (folder / ADAPTER_CONFIG).write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8"
    )


def _factors(
    spec: MergeSpec, rank: int, parts: Sequence[tuple[LowRank, float]], base: Tensor
) -> Factors:
    if any(part.magnitude is not None for part, _ in parts):
        deltas = [_delta(part, base) for part, _ in parts]
        total = weighted_sum(deltas, [weight for _, weight in parts])
        return factored(total.T if parts[0][0].flip else total, rank)
    both = [
        (
            part.a.to(base.device).double(),
            weight * part.scaling * part.b.to(base.device).double(),
        )
        for part, weight in parts
    ]
    whole = stacked(both)
    if spec.method == "cat":
        return whole
    return compressed(whole, rank if spec.method == "svd" else None)


def _delta(change: ParameterChange, base: Tensor) -> Tensor:
    return change.apply(base) - base.double()


def _plain(rank: int) -> dict[str, Any]:
    """Return the settings of a LoRA adapter with scaling 1 and nothing but A and B."""
    return {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "use_dora": False,
        "lora_bias": False,
        "bias": "none",
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "trainable_token_indices": None,
        "ensure_weight_tying": False,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
    }


def _targets(modules: Sequence[str], base: Mapping[str, Tensor]) -> list[str]:
    """Return the shortest names that fit these modules and no other one of the base."""
    ends = {module.rpartition(".")[2] for module in modules}
    fitting = {
        name.removesuffix(".weight")
        for name in base
        if name.endswith(".weight") and name.split(".")[-2] in ends
    }
    return sorted(ends if fitting == set(modules) else modules)
