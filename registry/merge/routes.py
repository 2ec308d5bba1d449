"""The routes of a forward pass: which experts the routers chose, kept and given to another pass.

In 16 bits a merged weight is rounded, and where two experts are nearly as good as one another, the
last bit of a hidden state chooses: the logits then differ by far more than any rounding, and say
nothing of the merge. So both passes that are compared go the same ways.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from registry.models.parity import logits_of, prompt_tokens
from registry.models.parts import is_router

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.models.load import LoadedModel
    from registry.models.parity import Logits

Routes = dict[str, list[Any]]
"""Router -> what it gave, call by call."""


def routed_logits(loaded: LoadedModel) -> tuple[Logits, Routes | None]:
    """Return the logits on the prompts, and their routes where these may be chosen by rounding."""
    tokens = prompt_tokens(loaded)
    if loaded.identity.dtype == "fp32":
        return logits_of(loaded.model, tokens), None
    kept: Routes = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            kept.setdefault(name, []).append(output)

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in _routers(loaded)]
    try:
        return logits_of(loaded.model, tokens), kept or None
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def same_routes(loaded: LoadedModel, routes: Routes | None) -> Iterator[None]:
    """Let passes over the prompts go these ways, in the order in which they were kept."""
    if routes is None:
        yield
        return
    left = {name: iter(given) for name, given in routes.items()}

    def give(name: str) -> Any:
        return lambda _module, _inputs, _output: next(left[name])

    hooks = [
        module.register_forward_hook(give(name))
        for name, module in _routers(loaded)
        if name in left
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _routers(loaded: LoadedModel) -> Iterator[tuple[str, Any]]:
    for name, module in loaded.model.named_modules():
        if is_router(name, module):
            yield name, module
