"""What gets LoRA: linear layers of the part that reads text, and the weights of experts.

A router is left as it is: it is trained with a loss of its own, which balances the experts.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from pipeline.training.losses.attention import NAME, make_layout
from registry.errors import ModelError
from registry.models.parts import expert_weights, is_router, is_wrapper, text_names, text_part
from registry.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.spec.train import TrainSpec

_WHERE = "train.targets"
_TOKENS = 5
_FACTORED = ("dora", "pissa")
"""Methods that PEFT has for layers alone."""


@dataclass(frozen=True)
class LoraTargets:
    """What a spec's targets are on a model.

    Attributes:
        layers: linear layers, and embeddings that were named, by name.
        weights: parameters of experts, [experts, …, …], by name.
        renamed: those of the layers that PEFT takes by their weight alone: their names were those
            of experts in transformers 4, and it would put LoRA on the experts for them.
        patterns: what stands in adapter_config.json for the layers.
        left: what is not trained though it has weights, a line each.
    """

    layers: Mapping[str, Any]
    weights: Mapping[str, Any]
    renamed: frozenset[str]
    patterns: frozenset[str]
    left: tuple[str, ...]

    def for_peft(self) -> dict[str, Any]:
        """Return PEFT's settings for them."""
        one_by_one = sorted({*self.weights, *(f"{name}.weight" for name in self.renamed)})
        return {"target_modules": set(self.patterns)} | (
            {"target_parameters": one_by_one} if one_by_one else {}
        )

    def sides(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield name, inputs, outputs and copies of each matrix that gets its own A and B."""
        for name, layer in self.layers.items():
            yield name, *layer_sides(layer), 1
        for name, weight in self.weights.items():
            copies, one, other = weight.shape
            yield name, one, other, copies


def layer_sides(layer: Any) -> tuple[int, int]:
    """Return a layer's two sizes; a quantised one's weight has another shape than it."""
    if hasattr(layer, "in_features"):
        return layer.in_features, layer.out_features
    rows, columns = layer.weight.shape
    return rows, columns


def lora_targets(model: Any, spec: TrainSpec) -> LoraTargets:
    """Return what gets LoRA, once the spec is seen to fit the model.

    Raises:
        UserError: a target that the base doesn't have or that can't be trained so, a method that
            is for other targets, or a rank above the size of all of them.
    """
    found = _every_linear(model) if isinstance(spec.targets, str) else _named(model, spec)
    if (found.weights or found.renamed) and spec.method in _FACTORED:
        raise ModelError(
            f"{spec.method} is not for the weights of experts, nor for layers that had their names "
            f"({_last(min([*found.renamed, *found.weights]))})",
            where="train.method",
            expected=f"lora, rslora or lora+; or linear layers named in {_WHERE}",
        )
    largest = max((min(one, other) for _, one, other, _ in found.sides()), default=spec.rank)
    if spec.rank > largest:
        raise ModelError(
            f"rank {spec.rank} is above the size of every layer it would be in",
            where="train.rank",
            expected=f"at most {largest}",
        )
    return found


def _every_linear(model: Any) -> LoraTargets:
    head, reads_text = model.get_output_embeddings(), text_names(model)
    linear = {
        name: module
        for name, module in _linear_layers(model).items()
        if module is not head and reads_text(name)
    }
    trained = {name: one for name, one in linear.items() if not is_router(name, one)}
    refused = _refused_by_peft(model) | _passed_by(model)
    kept = {name: module for name, module in trained.items() if name not in refused}
    experts = {name: one for name, one in expert_weights(model).items() if reads_text(name)}
    packed: set[str] = set()
    if getattr(model, "quantization_method", None) is not None:
        packed = _renamed_by_peft(model, {_last(name) for name in kept})
        kept = {name: module for name, module in kept.items() if _last(name) not in packed}
    left = [*_left(model, experts, refused & trained.keys())]
    if packed:
        names = ", ".join(sorted(packed))
        left.append(f"LoRA is not on {names}: quantised, and PEFT takes them by their weight here")
    return _targets(model, kept, experts, None, tuple(left))


def _left(model: Any, experts: Mapping[str, Any], refused: frozenset[str]) -> Iterator[str]:
    reads_text = text_names(model)
    routers = {
        _last(name)
        for name, module in model.named_modules()
        if is_router(name, module) and reads_text(name)
    }
    if experts and routers:
        yield (
            "LoRA is on the linear layers and on the weights of the experts; the router "
            f"({', '.join(sorted(routers))}) is left as it is"
        )
    if is_wrapper(model):
        yield f"LoRA is on the part that reads text alone ({text_part(model)[0]})"
    if refused:
        names = ", ".join(sorted({_last(name) for name in refused}))
        yield f"LoRA is not on {names}: this architecture uses their weights past their layers"


def _named(model: Any, spec: TrainSpec) -> LoraTargets:
    linear = _linear_layers(model)
    embedding, reads_text = model.get_input_embeddings(), text_names(model)
    could = {
        name: module
        for name, module in model.named_modules()
        if (name in linear or module is embedding)
        and reads_text(name)
        and not is_router(name, module)
    }
    experts = expert_weights(model)
    layers: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for target in spec.targets:
        here = {name: module for name, module in could.items() if _fits(name, target)}
        of_experts = {
            name: weight
            for name, weight in experts.items()
            if _fits(name, target) or _fits(name.rpartition(".")[0], target)
        }
        if not here and not of_experts:
            raise _unknown(model, target, [*could, *experts])
        layers |= here
        weights |= of_experts
    refused = (_refused_by_peft(model) | _passed_by(model)) & layers.keys()
    if refused:
        raise ModelError(
            f"{min(refused)} can't have LoRA: this architecture uses its weight past its layer",
            _WHERE,
            "all-linear, which leaves it out, or names of other layers",
        )
    _refuse_embeddings(model, spec, layers)
    return _targets(model, layers, weights, tuple(spec.targets), ())


def _refuse_embeddings(model: Any, spec: TrainSpec, layers: Mapping[str, Any]) -> None:
    embedding = model.get_input_embeddings()
    name = next((name for name, module in layers.items() if module is embedding), None)
    if name is not None and spec.method == "pissa":
        raise ModelError(
            f"pissa has no start for embeddings ({_last(name)})", _WHERE, "linear layers, or lora"
        )


def _unknown(model: Any, target: str, could: list[str]) -> ModelError:
    """Return why no layer of that name is trained."""
    reads_text = text_names(model)
    there = [(name, module) for name, module in model.named_modules() if _fits(name, target)]
    what = f"the base has no linear layer '{target}'"
    if any(is_router(name, module) for name, module in there):
        what = f"'{target}' chooses among experts, and a router is not trained"
    elif there and not any(reads_text(name) for name, _ in there):
        what = f"'{target}' reads no text: it is outside {text_part(model)[0]}"
    elif there:
        what += f" (it is a {type(there[0][1]).__name__})"
    known = sorted({_last(name) for name in could})
    near = difflib.get_close_matches(target, known, n=3, cutoff=0.4)
    return ModelError(what, _WHERE, f"all-linear, or among {', '.join(near or known)}")


def _targets(
    model: Any,
    layers: Mapping[str, Any],
    weights: Mapping[str, Any],
    named: tuple[str, ...] | None,
    left: tuple[str, ...],
) -> LoraTargets:
    taken = _renamed_by_peft(model, {_last(name) for name in layers})
    renamed = frozenset(name for name in layers if _last(name) in taken)
    patterns = frozenset(name for name in layers if name not in renamed)
    if named is not None and not renamed and not weights:
        every = {n for n, _ in model.named_modules() if any(_fits(n, one) for one in named)}
        if every == patterns:
            patterns = frozenset(named)  # as they were written
    return LoraTargets(layers, weights, renamed, patterns, left)


def _linear_layers(model: Any) -> dict[str, Any]:
    from transformers.pytorch_utils import Conv1D

    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}


def _refused_by_peft(model: Any) -> frozenset[str]:
    """Return the layers that PEFT refuses on this architecture, by its own rule."""
    with quiet_libraries():
        from peft import LoraConfig
        from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

    found = set()
    for name in _linear_layers(model):
        try:
            _check_lora_target_modules_mamba(LoraConfig(), model, _last(name))
        except ValueError:
            found.add(name)
    return frozenset(found)


_PASSED: WeakKeyDictionary[nn.Module, frozenset[str]] = WeakKeyDictionary()


def _passed_by(model: Any) -> frozenset[str]:
    """Return the linear layers that a forward pass doesn't call: LoRA on them would do nothing.

    State-space layers hand the weights of some to a kernel. One pass over a few tokens tells, as
    in training; generators stay as they are. Single experts are called for some tokens alone.
    """
    if model.device.type == "meta":
        return frozenset()  # no pass without weights: an estimate counts them all
    if model not in _PASSED:
        _PASSED[model] = _not_called(model)
    return _PASSED[model]


def _not_called(model: Any) -> frozenset[str]:
    names = {id(module): name for name, module in _linear_layers(model).items()}
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda one, _: called.add(names[id(one)]))
        for module in _linear_layers(model).values()
    ]
    ids = torch.arange(_TOKENS, device=model.device)[None]
    given: dict[str, Any] = {"attention_mask": None, "use_cache": False}
    if model.config._attn_implementation == NAME:  # noqa: SLF001  there is no public reader
        given["packed_layout"] = make_layout([_TOKENS], ids.device)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            model.train()
            model(input_ids=ids, **given)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return frozenset(
        name for name in names.values() if name not in called and ".experts." not in name
    )


def _renamed_by_peft(model: Any, names: set[str]) -> set[str]:
    """Return the names that PEFT takes for those of experts in transformers 4, by its own rule."""
    with quiet_libraries():
        from peft import LoraConfig
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    found = set()
    for name in names:
        config = LoraConfig(target_modules=[name])
        try:
            convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # one of two that became one
            found.add(name)
        if config.target_modules != {name}:
            found.add(name)
    return found


def _fits(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
