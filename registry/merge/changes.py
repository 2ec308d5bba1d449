"""An adapter's changes to the parameters of its base, in float64: the terms that merges add up.

`read_changes` turns an adapter's file into one `ParameterChange` a parameter, a function from the
parameter's value to its new one: LoRA's B A with its scaling (Hu et al. 2021; rsLoRA, rank and
alpha patterns), DoRA's magnitudes (Liu et al. 2024), biases, whole modules, rows of the embeddings.
What can't be written as new values of the base's parameters is refused by name.

For a linear layer of 2 inputs and 3 outputs, W is [3, 2] and LoRA of rank 1 has A [1, 2] and
B [3, 1]; with alpha = 2 the change is W -> W + 2 B A. Its delta, W' - W, is what a merge of several
adapters weighs and adds: W + .5 delta_1 + .5 delta_2. A change is applied when its parameter is
asked for, at rank * in * out products, and one parameter at a time is in memory in float64.

In float64, as deltas are small beside W: what is lost in adding them is far below the one rounding
to the saved dtype, and so every difference from PEFT's own forward is told from rounding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from registry.errors import GateRefusedError, ModelError
from registry.models.changed import read_changed
from registry.models.files import adapter_key, holds_changed
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from registry.models.load import LoadedModel

_REFUSED = {
    "use_qalora": "QA-LoRA pools its input",
    "use_bdlora": "BD-LoRA splits its matrices in blocks",
    "layer_replication": "layer_replication changes the number of layers",
    "alora_invocation_tokens": "aLoRA is active for a part of the tokens alone",
    "arrow_config": "Arrow routes between adapters",
    "kasa_config": "KaSA changes the base's weights",
    "velora_config": "VeLoRA changes the forward pass",
    "monteclora_config": "MonteCLoRA is a distribution over adapters",
}
_HARMLESS_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_PREFIX = "base_model.model."
_MATRIX = 2


class ParameterChange(Protocol):
    """What happens to one parameter."""

    def apply(self, weight: Tensor) -> Tensor:
        """Return the changed parameter in float64, on the device of `weight`."""


@dataclass(frozen=True)
class LowRank:
    """W + scaling B A; with magnitudes m, DoRA: m (W + scaling B A) / |W + scaling B A|.

    `flip`: the parameter is stored as [in, out], as in embeddings and GPT-2's Conv1D.
    """

    a: Tensor
    b: Tensor
    scaling: float
    flip: bool
    magnitude: Tensor | None = None

    def apply(self, weight: Tensor) -> Tensor:
        """Return the changed parameter."""
        near = weight.double()
        turned = near.T if self.flip else near
        a, b = (side.to(weight.device).double() for side in (self.a, self.b))
        changed = turned + self.scaling * (b @ a)
        if self.magnitude is not None:
            length = changed.norm(dim=1, keepdim=True)
            changed = self.magnitude.to(weight.device).double()[:, None] * changed / length
        return changed.T if self.flip else changed


@dataclass(frozen=True)
class ExpertsLowRank:
    """W_e + scaling B_e A_e for each of a layer's experts e; W is [experts, out, in].

    `a` is [experts, rank, in], `b` [experts, out, rank]. `flip`: W is stored [experts, in, out].
    """

    a: Tensor
    b: Tensor
    scaling: float
    flip: bool

    def apply(self, weight: Tensor) -> Tensor:
        """Return the changed parameter."""
        a, b = (side.to(weight.device).double() for side in (self.a, self.b))
        delta = b @ a
        return weight.double() + self.scaling * (delta.mT if self.flip else delta)


@dataclass(frozen=True)
class BiasShift:
    """A bias and what LoRA's own bias adds to it."""

    by: Tensor
    scaling: float

    def apply(self, weight: Tensor) -> Tensor:
        """Return the changed parameter."""
        return weight.double() + self.scaling * self.by.to(weight.device).double()


@dataclass(frozen=True)
class ReplacedParameter:
    """A parameter that was trained whole."""

    value: Tensor

    def apply(self, weight: Tensor) -> Tensor:
        """Return the changed parameter."""
        return self.value.to(weight.device).double()


@dataclass(frozen=True)
class EmbeddingRows:
    """Rows of an embedding that were trained."""

    indices: tuple[int, ...]
    values: Tensor

    def apply(self, weight: Tensor) -> Tensor:
        """Return the changed parameter."""
        changed = weight.double().clone()
        changed[list(self.indices)] = self.values.to(weight.device).double()
        return changed


Changes = dict[str, ParameterChange]


def refuse_unmergeable(adapter: Path) -> None:
    """Refuse by name every adapter that is more than new values of the base's parameters.

    Raises:
        UserError: it is one.
    """
    if holds_changed(adapter):
        return
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    where = f"{adapter.name[:12]}/{ADAPTER_CONFIG}"
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{config.get('peft_type')} can't be merged", where, "LORA")
    for key, why in _REFUSED.items():
        if config.get(key):
            raise ModelError(f"can't be merged: {why}", f"{where}: {key}", "LoRA or DoRA")
    start = config.get("init_lora_weights")
    if start not in _HARMLESS_INITS:
        raise ModelError(
            f"can't be merged: {start} changes the base's own weights when it is put on",
            f"{where}: init_lora_weights",
            "LoRA or DoRA",
            "convert it with PEFT's path_initial_model_for_weight_conversion",
        )


def parameters_of(model: Any) -> dict[str, Tensor]:
    """Return every parameter under every name it has: tied ones are there more than once."""
    return dict(model.named_parameters(remove_duplicate=False))


def adapted_modules(loaded: LoadedModel, adapter: Path) -> dict[str, Any]:
    """Return the modules that PEFT has put in for the adapter in use, by the base's name."""
    return dict(_adapted(loaded.model, adapter_key(adapter)))


def read_changes(loaded: LoadedModel, adapter: Path, base: Mapping[str, Tensor]) -> Changes:
    """Return parameter name -> what the adapter does to it. The adapter is in use.

    Args:
        loaded: the base with the adapter on.
        adapter: its folder.
        base: the parameters as they were before the adapter was put on.

    Raises:
        UserError: it holds something that isn't a change of a parameter of this base.
        GateRefusedError: its file and the modules that PEFT made of it don't agree.
    """
    from safetensors.torch import load_file

    if holds_changed(adapter):
        return _whole_changes(loaded.model, adapter)
    file = {k.removeprefix(_PREFIX): t for k, t in load_file(adapter / ADAPTER_WEIGHTS).items()}
    key = adapter_key(adapter)
    found: Changes = {}
    try:
        for name, module in _adapted(loaded.model, key):
            found |= _changes_of(name, module, key, file)
    except KeyError as error:
        message = f"merge refused: the adapter's file has no {error.args[0]}, which PEFT put in"
        raise GateRefusedError(message) from None
    found |= _leftovers(adapter, file, base)
    for name, change in found.items():
        if name not in base or change.apply(base[name]).shape != base[name].shape:
            raise ModelError(_why_not(name), adapter.name[:12], "an adapter of this base")
    return found


def _whole_changes(model: Any, folder: Path) -> Changes:
    """Tied parameters change under every name they have."""
    changed = read_changed(folder)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    every = {name: names[id(parameter)] for name, parameter in parameters_of(model).items()}
    return {name: ReplacedParameter(changed[own]) for name, own in every.items() if own in changed}


def _adapted(model: Any, key: str) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        holders = [
            getattr(module, holder, None)
            for holder in ("lora_A", "lora_embedding_A", "modules_to_save")
        ]
        if hasattr(module, "token_adapter"):
            holders.append(module.token_adapter.token_indices)
        if any(holder and key in holder for holder in holders):
            yield name, module


def _changes_of(name: str, module: Any, key: str, file: dict[str, Tensor]) -> Changes:
    if hasattr(module, "lora_A"):
        return _lora(name, module, key, file)
    if hasattr(module, "token_adapter"):
        return _tokens(name, module, key, file)
    trained = module.modules_to_save[key]
    return {
        f"{name}.{p}": ReplacedParameter(file.pop(f"{name}.{p}"))
        for p, _ in trained.named_parameters()
    }


def _lora(name: str, module: Any, key: str, file: dict[str, Tensor]) -> Changes:
    scaling = float(module.scaling[key])
    magnitude = file.pop(f"{name}.lora_magnitude_vector", None)
    if key in module.lora_embedding_A:
        a, b = file.pop(f"{name}.lora_embedding_A"), file.pop(f"{name}.lora_embedding_B")
        return {f"{name}.weight": LowRank(a, b, scaling, flip=True, magnitude=magnitude)}
    a, b = file.pop(f"{name}.lora_A.weight"), file.pop(f"{name}.lora_B.weight")
    if a.dim() != _MATRIX:
        raise ModelError(f"can't be merged: {name} is a convolution", expected="linear layers")
    if hasattr(module, "parameter_name"):
        return {parameter_of(name, module): _of_parameter(module, a, b, scaling)}
    flip = bool(module.fan_in_fan_out)
    found: Changes = {f"{name}.weight": LowRank(a, b, scaling, flip=flip, magnitude=magnitude)}
    if (bias := file.pop(f"{name}.lora_B.bias", None)) is not None:
        found[f"{name}.bias"] = BiasShift(bias, scaling)
    return found


def parameter_of(name: str, module: Any) -> str:
    """Return the base's name of the parameter that PEFT wraps by itself.

    Wrappers of two parameters of one module lie in each other.
    """
    return f"{name.replace('.base_layer', '')}.{module.parameter_name}"


def _of_parameter(module: Any, a: Tensor, b: Tensor, scaling: float) -> ParameterChange:
    """Return the change of a parameter by itself; PEFT lays the experts' factors side by side."""
    if module.num_experts == 1:
        return LowRank(a, b, scaling, flip=False)
    experts = module.num_experts
    apart = b.reshape(len(b), -1, experts).permute(2, 0, 1)
    flip = bool(getattr(module.get_base_layer(), "is_transposed", False))
    return ExpertsLowRank(a.reshape(experts, -1, a.shape[1]), apart, scaling, flip)


def _tokens(name: str, module: Any, key: str, file: dict[str, Tensor]) -> Changes:
    adapter = module.token_adapter
    tied = adapter.tied_adapter is not None  # the file has the values under the other's name
    stored = f"{name}.token_adapter.trainable_tokens_delta"
    values = adapter.trainable_tokens_delta[key].detach() if tied else file.pop(stored)
    return {f"{name}.weight": EmbeddingRows(tuple(adapter.token_indices[key]), values)}


def _leftovers(adapter: Path, file: dict[str, Tensor], base: Mapping[str, Tensor]) -> Changes:
    """Return the trained biases; beside them only copies of the base's own weights may be left."""
    import torch

    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    found: Changes = {}
    for key, tensor in file.items():
        name = key.replace(".base_layer.", ".")
        own = base.get(name)
        if own is not None and name.endswith(".bias") and config.get("bias", "none") != "none":
            found[name] = ReplacedParameter(tensor)
        elif own is None or not torch.equal(tensor.to(own), own):
            raise ModelError(
                f"can't be merged: {_why_not(name)}",
                f"{adapter.name[:12]}/{ADAPTER_WEIGHTS}",
                "changes of the base's parameters",
            )
    return found


def _why_not(name: str) -> str:
    if name.endswith(".bias"):
        return f"{name} is trained and the base has no such bias"
    return f"{name} is no parameter of the base, or of another size or value there"
