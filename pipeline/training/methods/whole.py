"""Training of a base's own weights, all or those of the last layers, to hold LoRA against.

Weights that are trained are fp32 masters. Where the base is computed in less, each forward pass
casts them, and what is kept is rounded once to the dtype that the base was loaded in.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.training.machine import processes
from pipeline.training.methods.new_rows import refuse_untrained
from registry.errors import ModelError
from registry.models.changed import write_changed
from registry.models.parts import decoder_layers, text_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from pipeline.spec.train import TrainSpec
    from registry.models.load import LoadedModel


@contextmanager
def whole_weights(loaded: LoadedModel, spec: TrainSpec) -> Iterator[Mapping[str, torch.Tensor]]:
    """Let the base's own weights be trained for a while; afterwards it is as it was.

    Yields what they were, by name.

    Raises:
        UserError: a quantised base, or more layers to be trained than it has.
    """
    model = loaded.model
    if getattr(model, "quantization_method", None) is not None:
        raise ModelError(
            f"a quantised base's own weights can't be trained by {spec.method}",
            where="train.method",
            expected="lora or a kind of it; or a base without `quantize`",
        )
    refuse_untrained(loaded, spec)
    chosen = chosen_weights(model, spec)
    before = {name: parameter.data for name, parameter in chosen.items()}
    use_cache = getattr(model.config, "use_cache", None)
    computed = next(p.dtype for p in model.parameters() if p.is_floating_point())
    try:
        for parameter in chosen.values():
            parameter.data = parameter.data.to(torch.float32, copy=True)
            parameter.requires_grad = True
        if computed != torch.float32:
            _cast_each_pass(model, loaded.device.type, computed)
        yield before
    finally:
        vars(model).pop("forward", None)
        for name, data in before.items():
            chosen[name].data = data
        if use_cache is not None:
            model.config.use_cache = use_cache
        model.requires_grad_(requires_grad=False)
        model.zero_grad(set_to_none=True)
        model.eval()


def chosen_weights(model: nn.Module, spec: TrainSpec) -> dict[str, nn.Parameter]:
    """Return the base's own parameters that `full` or `freeze` trains, by name.

    Raises:
        UserError: more layers to be trained than there are.
    """
    trained = text_names(model)
    every = {
        name: p for name, p in model.named_parameters() if p.is_floating_point() and trained(name)
    }
    if spec.method == "full":
        return every
    name, layers = decoder_layers(model)
    if spec.layers > len(layers):
        raise ModelError(
            f"the base has {len(layers)} layers, and the last {spec.layers} are to be trained",
            where="train.layers",
            expected=f"1 to {len(layers)}",
        )
    last = tuple(f"{name}.{index}." for index in range(len(layers) - spec.layers, len(layers)))
    return {one: p for one, p in every.items() if one.startswith(last)}


def _cast_each_pass(model: PreTrainedModel, device: str, dtype: torch.dtype) -> None:
    own = model.forward

    @functools.wraps(own)  # its signature is looked at
    def forward(*args: Any, **kwargs: Any) -> Any:
        # Around one pass and no more: within it autocast keeps the weights that it has cast.
        with torch.autocast(device, dtype):
            return own(*args, **kwargs)

    model.forward = forward


def save_changed(
    loaded: LoadedModel, spec: TrainSpec, before: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Write the trained weights that are not as they were; call it inside `whole_weights`."""
    own = dict(loaded.model.named_parameters())
    trained = {name: processes.gather(own[name].detach()).to(loaded.dtype) for name in before}
    trained = {
        name: tensor
        for name, tensor in trained.items()
        if not torch.equal(tensor, before[name].to(loaded.dtype))
    }
    facts: dict[str, Any] = {"base": loaded.identity.name, "method": spec.method}
    if spec.method == "freeze":
        facts["layers"] = spec.layers
    if loaded.new_tokens:
        facts["new_tokens"] = list(loaded.new_tokens)
    write_changed(folder, trained, facts)
