"""The proof of a merge, beyond logits: what a module does by PEFT and by us, both in float64."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from registry.errors import GateRefusedError
from registry.merge.changes import adapted_modules, parameter_of
from registry.merge.routes import same_routes
from registry.merge.weights import unlike_saved
from registry.models.parity import (
    BOUNDS,
    distance,
    first_of,
    logits_in_new_process,
    logits_of,
    refuse_beyond,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from registry.merge.changes import Changes
    from registry.merge.weights import Targets
    from registry.models.load import LoadedModel
    from registry.models.parity import Logits

_PROBES = 16  # random inputs of a linear module: two different matrices agree on none of them
_IDS = 1024  # tokens of an embedding that are looked up
_ALLOWED = 1e-6  # of what the adapter adds


def refuse_unlike_peft(
    loaded: LoadedModel,
    adapter: Path,
    changes: Changes,
    base: Mapping[str, Tensor],
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Refuse changes that are not what PEFT computes with the adapter, which is in use.

    Each module that PEFT has put in is run in float64, beside the base's module with the changed
    parameters, on random inputs: neither knows the other's formula.

    Raises:
        GateRefusedError: it names the modules, the furthest off first.
    """
    off = {}
    for name, module in adapted_modules(loaded, adapter).items():
        off[name] = _off(name, module, changes, base)
        advance(1)
    wrong = [name for name in sorted(off, key=lambda n: -off[n]) if not off[name] <= _ALLOWED]
    if wrong:
        raise GateRefusedError(
            f"merge refused: PEFT computes something else, by {off[wrong[0]]:.2g} of what the "
            f"adapter adds; what differs: {first_of(wrong)}"
        )


def unlike_targets(merged: Mapping[str, Tensor], targets: Targets) -> list[str]:
    """Return the modules whose merged weight isn't, bit for bit, the rounded target."""
    import torch

    return [
        name.removesuffix(".weight")
        for name in targets.names
        if name not in merged or not torch.equal(merged[name], targets.rounded(name))
    ]


def check_merged(
    loaded: LoadedModel,
    merged: Mapping[str, Tensor],
    targets: Targets,
    reference: Logits,
    tokens: Sequence[Sequence[int]],
) -> Logits:
    """Return the logits with the merged weights; the base alone is in use.

    Raises:
        GateRefusedError: they are beyond the dtype's bound from `reference`, or a weight is not
            what it should be; names the modules.
    """
    with same_routes(loaded, targets.routes):
        found = logits_of(loaded.model, tokens, merged)
    off = distance(reference, found)
    refuse_beyond(
        BOUNDS[loaded.identity.dtype], off, "after the merge", unlike_targets(merged, targets)
    )
    return found


def check_saved(
    loaded: LoadedModel,
    merged: Mapping[str, Tensor],
    folder: Path,
    reference: Logits,
    tokens: Sequence[Sequence[int]],
    advance: Callable[[int], None] = lambda _: None,
) -> Logits:
    """Return the logits of the saved model in a new process.

    Raises:
        GateRefusedError: a saved weight is not the merged one, bit for bit, or the logits are
            beyond the bound; names the modules.
    """
    wrong = unlike_saved(loaded, merged, folder, advance)
    found = logits_in_new_process(folder, tokens)
    off = distance(reference, found)
    refuse_beyond(BOUNDS[loaded.identity.dtype], off, "reloaded in a new process", wrong)
    return found


@contextmanager
def on_target(loaded: LoadedModel, targets: Targets) -> Iterator[None]:
    """Compute every module whose parameters change in float64, from its unrounded target.

    What goes in and comes out has the model's dtype, and all other modules compute as they do: the
    reference of a merge for which there is no adapter that PEFT could put on.

    Raises:
        GateRefusedError: a target is of no module's own.
    """
    own = {
        name: module
        for name, module in loaded.model.named_modules(remove_duplicate=False)
        if any(f"{name}.{p}" in targets.names for p, _ in module.named_parameters(recurse=False))
    }
    reached = {f"{n}.{p}" for n, m in own.items() for p, _ in m.named_parameters(recurse=False)}
    if lost := sorted(set(targets.names) - reached):
        raise GateRefusedError(f"merge refused: {lost[0]} is no module's own parameter")
    before = {name: vars(module).get("forward") for name, module in own.items()}
    try:
        for name, module in own.items():
            module.forward = _exact_forward(name, module, targets)
        yield
    finally:
        for name, module in own.items():
            if before[name] is None:
                del module.forward
            else:
                module.forward = before[name]


def _exact_forward(name: str, module: Any, targets: Targets) -> Any:
    dtype = next(module.parameters(recurse=False)).dtype

    def forward(given: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        exact = _exact(name, module, targets)
        given = given.double() if given.is_floating_point() else given
        return exact(given, *args, **kwargs).to(dtype)

    return forward


def _exact(name: str, module: Any, values: Targets | Mapping[str, Tensor]) -> Any:
    """Return a copy of a module of the base in float64, with these parameters."""
    import torch

    twin = copy.copy(module)  # the parameters are not copied before they are replaced
    twin.__dict__ = {k: v for k, v in vars(module).items() if k != "forward"}
    twin._parameters = {  # noqa: SLF001 - a module's own state
        key: None if own is None else torch.nn.Parameter(values[f"{name}.{key}"], False)  # noqa: FBT003
        for key, own in module._parameters.items()  # noqa: SLF001
    }
    if hasattr(getattr(module, "config", None), "_experts_implementation"):
        twin.config = copy.copy(module.config)  # its kernels for experts take no float64
        twin.config._experts_implementation = "eager"  # noqa: SLF001
    return twin


def _off(name: str, module: Any, changes: Changes, base: Mapping[str, Tensor]) -> float:
    """Return how far a module by PEFT is from ours, in parts of what the adapter adds."""
    if hasattr(module, "parameter_name"):
        return _parameter_off(name, module, changes, base)
    original = _original(module)
    if getattr(original, "weight", None) is None:
        return 0.0  # a whole block that was trained: its parameters are in the file as they are
    plain, changed = {}, {}
    for key, _ in original.named_parameters(recurse=False):
        full = f"{name}.{key}"
        plain[full] = base[full].double()
        changed[full] = changes[full].apply(base[full]) if full in changes else plain[full]
    given = _probe(original, changes.get(f"{name}.weight"))
    by_peft = copy.deepcopy(module).double()(given)
    by_us = _exact(name, original, changed)(given)
    added = float((by_peft - _exact(name, original, plain)(given)).abs().max())
    return float((by_peft - by_us).abs().max()) / (added or float(by_peft.abs().max()) or 1.0)


def _parameter_off(name: str, module: Any, changes: Changes, base: Mapping[str, Tensor]) -> float:
    """Return the same of a parameter that PEFT wraps by itself: of what it adds to it."""
    import torch

    parameter = parameter_of(name, module)
    twin = copy.copy(module)
    twin._modules = dict(module._modules)  # noqa: SLF001 - a module's own state
    for side in ("lora_A", "lora_B"):
        twin._modules[side] = copy.deepcopy(module._modules[side]).double()  # noqa: SLF001
    stand_in = torch.nn.Module()  # PEFT asks the parameter for its dtype
    stand_in.register_parameter(
        module.parameter_name, torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    )
    twin._modules["base_layer"] = stand_in  # noqa: SLF001
    (key,) = (key for key in module.active_adapters if key in module.lora_A)
    with torch.no_grad():
        if module.num_experts == 1:
            by_peft = twin.get_delta_weight(key)
        else:
            left, right, scaling = twin.get_delta_factors(key)
            by_peft = scaling * (left @ right)
    by_us = changes[parameter].apply(base[parameter]) - base[parameter].double()
    if by_peft.shape != by_us.shape:
        return float("inf")
    size = float(by_peft.abs().max())
    # What is left of a difference of two weights, in float64: far below what is allowed.
    return float((by_peft.to(by_us.device) - by_us).abs().max()) / (size or 1.0)


def _original(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "lora_A") else module.original_module


def _probe(original: Any, change: Any) -> Tensor:
    """Return random inputs of a module: token ids, or vectors."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = original.weight
    if isinstance(original, torch.nn.Embedding):
        ids = torch.randperm(weight.shape[0], generator=generator)[:_IDS]
        rows = torch.tensor(getattr(change, "indices", ()), dtype=torch.long)
        return torch.cat([ids, rows]).to(weight.device)
    transposed = type(original).__name__ == "Conv1D"  # GPT-2's, stored as [in, out]
    width = weight.shape[0] if transposed else weight.shape[-1]
    drawn = torch.randn((_PROBES, width), generator=generator, dtype=torch.float64)
    return drawn.to(weight.device)
