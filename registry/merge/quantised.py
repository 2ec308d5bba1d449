"""Merges into a quantised base: the dequantised base is the default, the others are measured.

An adapter of a quantised base was trained against its rounded weights. Into those it is merged,
and the result is saved in the dtype that the base is computed in. Merged into the weights as they
were before quantisation, or quantised again after the merge, it answers differently: by how much
is in the report.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.merge.changes import parameters_of
from registry.merge.weights import no_bars
from registry.models.base import weight_files
from registry.models.classes import causal_class
from registry.models.new_tokens import initial_rows
from registry.models.parity import BOUNDS, distance, logits_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from registry.merge.weights import Targets
    from registry.models.load import LoadedModel
    from registry.models.parity import Logits

INT8_BOUND = 0.15
"""Allowed difference of logits where the base is int8: it rounds its activations to 8 bits too.

Random adapters on random bases measured 0.046 in fp32.
"""

_KINDS = ("Linear4bit", "Linear8bitLt")
_FLAGS = (
    *("is_quantized", "quantization_method", "hf_quantizer", "is_loaded_in_4bit"),
    "is_loaded_in_8bit",
)


@dataclass(frozen=True)
class QuantisedDistances:
    """How far three ways to merge are from the quantised base with the adapter on, in logits.

    Attributes:
        bound: what is allowed of `dequantised`, which is the one that is saved.
        dequantised: merged into the dequantised weights.
        original: merged into the weights as they were before quantisation; None where their
            files aren't there any more.
        in_place: merged and quantised again.
    """

    bound: float
    dequantised: float
    original: float | None
    in_place: float


def is_quantised(loaded: LoadedModel) -> bool:
    """Tell whether the base's linear layers are bitsandbytes'."""
    return any(type(module).__name__ in _KINDS for module in loaded.model.modules())


def bound_of(loaded: LoadedModel) -> float:
    """Return what may lie between a quantised base with an adapter on and the merged model."""
    eight = any(type(module).__name__ == "Linear8bitLt" for module in loaded.model.modules())
    return INT8_BOUND if eight else BOUNDS[loaded.identity.dtype]


@contextmanager
def dequantised(loaded: LoadedModel) -> Iterator[dict[str, Any]]:
    """Make the base a plain one: linear layers with what the quantised weights stand for.

    Yields the quantised modules by name; they are put back when the body ends.
    """
    model = loaded.model
    quantised = {n: m for n, m in model.named_modules() if type(m).__name__ in _KINDS}
    flags = {key: vars(model).pop(key) for key in _FLAGS if key in vars(model)}
    said = vars(model.config).pop("quantization_config", None)
    for name, module in quantised.items():
        model.set_submodule(name, _plain(module, loaded))
    try:
        yield quantised
    finally:
        for name, module in quantised.items():
            model.set_submodule(name, module)
        vars(model).update(flags)
        if said is not None:
            model.config.quantization_config = said


def in_place(
    loaded: LoadedModel, quantised: Mapping[str, Any], merged: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the merged weights after they were quantised again, as the base's layers were."""
    return {
        name: _again(quantised[module], weight, loaded)
        if (module := name.removesuffix(".weight")) in quantised and name.endswith(".weight")
        else weight
        for name, weight in merged.items()
    }


def into_original(
    loaded: LoadedModel, targets: Targets, tokens: Sequence[Sequence[int]]
) -> Logits | None:
    """Return the logits of the adapter merged into the weights that the base was quantised from."""
    folder = Path(str(loaded.model.config._name_or_path))  # noqa: SLF001 - where it was read from
    if not folder.is_dir() or not weight_files(folder):
        return None
    with no_bars():
        original = causal_class(loaded.model.config).from_pretrained(
            folder, dtype=loaded.dtype, use_safetensors=True
        )
    original = original.to(loaded.device).eval()
    if loaded.new_tokens:
        initial_rows(original, loaded.tokenizer, loaded.new_tokens)
    own = parameters_of(original)
    weights = {name: targets.on(name, own[name]).to(own[name].dtype) for name in targets.names}
    return logits_of(original, tokens, weights)


def measured(
    loaded: LoadedModel,
    quantised: Mapping[str, Any],
    merged: Mapping[str, Tensor],
    targets: Targets,
    trained: Logits,
    after: Logits,
    tokens: Sequence[Sequence[int]],
    bound: float,
) -> QuantisedDistances:
    """Return how far each way is from `trained`, the quantised base with the adapter on."""
    again = logits_of(loaded.model, tokens, in_place(loaded, quantised, merged))
    original = into_original(loaded, targets, tokens)
    return QuantisedDistances(
        bound=bound,
        dequantised=distance(trained, after),
        original=None if original is None else distance(trained, original),
        in_place=distance(trained, again),
    )


def _plain(module: Any, loaded: LoadedModel) -> Any:
    import torch
    from peft.utils.integrations import dequantize_bnb_weight

    weight = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
    plain = torch.nn.Linear(
        module.in_features, module.out_features, bias=module.bias is not None, device="meta"
    )
    plain.weight = torch.nn.Parameter(weight.to(loaded.dtype), requires_grad=False)
    if module.bias is not None:
        plain.bias = torch.nn.Parameter(module.bias.to(loaded.dtype), requires_grad=False)
    return plain.eval()


def _again(module: Any, weight: Tensor, loaded: LoadedModel) -> Tensor:
    import torch
    from bitsandbytes import functional

    if type(module).__name__ == "Linear8bitLt":
        levels, scales, _ = functional.int8_vectorwise_quant(weight.to(torch.float16))
        return functional.int8_vectorwise_dequant(levels, scales).to(loaded.dtype)
    state = module.weight.quant_state
    packed, made = functional.quantize_4bit(
        weight.contiguous(),
        blocksize=state.blocksize,
        quant_type=state.quant_type,
        compress_statistics=state.nested,
    )
    return functional.dequantize_4bit(packed, made).to(loaded.dtype)
