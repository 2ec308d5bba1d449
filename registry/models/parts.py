"""The parts of a language model, whatever its class calls them.

The text part is the decoder that reads tokens: of a wrapper for pictures and sound, the part inside
it; else all of the model. Its layers are one list, and its last hidden states are what the LM head
is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

_ROUTER_NAMES = ("gate", "router")
_LIMITS = (
    *("window", "window_size", "chunk_size"),
    *("original_max_position_embeddings", "floor_scale"),
)
"""How their names end."""


def text_config(model: Any) -> Any:
    """Return the config of the part that reads text."""
    return model.config.get_text_config(decoder=True)


def figure(config: Any, *names: str) -> int | None:
    """Return a size of a config under the first of these names that it has, None for none.

    Where layers differ (a list, or a config for each of them) it is the largest.
    """
    layers = [config]
    if getattr(config, "is_heterogeneous", False):
        layers = [config.per_layer_config[layer] for layer in range(config.num_hidden_layers)]
    for name in names:
        values: list[Any] = []
        for layer in layers:
            value = getattr(layer, name, None)
            values += value if isinstance(value, list | tuple) else [value]
        sizes = [int(value) for value in values if isinstance(value, int | float) and value]
        if sizes:
            return max(sizes)
    return None


def length_limits(config: Any) -> Iterator[tuple[str, int]]:
    """Yield name and tokens of all lengths at which attention or positions change in kind."""
    yield from _limits(config.to_dict(), "")


def _limits(value: Any, name: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _limits(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _limits(inner, name)
    elif type(value) is int and value > 0 and name.endswith(_LIMITS):
        yield name, value


def text_part(model: Any) -> tuple[str, Any]:
    """Return the name and the module that makes hidden states of tokens, without the LM head.

    Raises:
        UserError: the model has no such module.
    """
    named = {id(module): name for name, module in model.named_modules()}
    for part in (model.get_decoder(), model.base_model):
        if part is not None and named.get(id(part)):
            return named[id(part)], part
    # A class whose prefix isn't that of its text part (Llama4ForCausalLM).
    name = named.get(id(model.get_input_embeddings()), "").rpartition(".")[0]
    if not name:
        raise ModelError(
            f"{type(model).__name__} has no part that makes hidden states of tokens",
            expected="a causal language model",
        )
    return name, model.get_submodule(name)


def is_wrapper(model: Any) -> bool:
    """Whether a model is more than a language model: it reads pictures or sound too."""
    return text_config(model) is not model.config


def text_names(model: Any) -> Callable[[str], bool]:
    """Return whether a module or parameter of this name belongs to what reads and writes text."""
    if not is_wrapper(model):
        return lambda _: True
    head = model.get_output_embeddings()
    parts = [text_part(model)[0], *(name for name, one in model.named_modules() if one is head)]
    inside = tuple(f"{part}." for part in parts)
    return lambda name: name in parts or name.startswith(inside)


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the name and the list of the text part's layers.

    It is the list of as many modules as the config says, else the longest one.

    Raises:
        UserError: there is no list.
    """
    from torch import nn

    prefix, part = text_part(model)
    lists = [
        (f"{prefix}.{name}", module)
        for name, module in part.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not lists:
        raise ModelError(
            "the base has no list of layers", "train.method", "lora, or full, which needs none"
        )
    count = getattr(text_config(model), "num_hidden_layers", None)
    return next((one for one in lists if len(one[1]) == count), max(lists, key=lambda o: len(o[1])))


def is_router(name: str, module: Any) -> bool:
    """Whether a module chooses or weighs the experts that see a token."""
    last = name.rpartition(".")[2]
    return (
        last in _ROUTER_NAMES
        or "router" in last
        or last.endswith("expert_gate")
        or "Router" in type(module).__name__
    )


def expert_weights(model: Any) -> dict[str, Any]:
    """Return parameters that hold the matrices of a layer's experts, by name: [experts, …, …]."""
    return {
        f"{name}.{own}": parameter
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "experts"
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3  # noqa: PLR2004 - experts, and a matrix each
    }


def refuse_beyond(model: Any, tokenizer: Any, ids: Any, where: str) -> None:
    """Refuse tokens that have no row in the embeddings, by name.

    Args:
        model: whose embeddings.
        tokenizer: that made them.
        ids: any array of ids; empty is fine.
        where: the base, as messages name it.

    Raises:
        UserError: there is one.
    """
    import numpy as np

    rows = int(model.get_input_embeddings().weight.shape[0])
    highest = int(np.max(ids)) if len(ids) else 0
    if highest >= rows:
        raise ModelError(
            f"token {tokenizer.convert_ids_to_tokens(highest)!r} has id {highest}, and the base "
            f"has embeddings for {rows} tokens",
            where,
            "the tokenizer of this base",
            "take the files of one model, or resize its embeddings and save it again",
        )
