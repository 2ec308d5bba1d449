"""The weights of a merged model: float64 targets, rounded, tied and saved.

The base is left as it was: PEFT leaves trained modules and biases behind when it takes an adapter
off, so what it touches is put back here.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.merge.changes import parameters_of
from registry.models.changed import read_changed
from registry.models.files import holds_changed
from registry.models.tokenizer import save_tokenizer
from registry.store.filenames import ADAPTER_WEIGHTS, MODEL_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from registry.merge.routes import Routes
    from registry.models.load import LoadedModel

Weights = dict[str, "torch.Tensor"]

KEPT_BYTES = 4 * 2**30
"""Targets are kept in memory up to this size, and made again beyond it."""

_SAME = 1e-12  # of the largest entry: two float64 sums of the same terms in another order


@dataclass(frozen=True)
class LoadedBase:
    """A base before any adapter was on it.

    Attributes:
        base: its parameters, under every name.
        ties: names of one and the same parameter, for each that has several.
        unties: its config says that they are tied, so that it can say that they aren't.
        alone: takes adapters off and puts back all that PEFT left behind.
        advance: told how many tensors were dealt with since the last call.
    """

    base: dict[str, Tensor]
    ties: list[list[str]]
    unties: bool
    alone: Callable[[], None]
    advance: Callable[[int], None] = lambda _: None


class Targets:
    """Changed parameter -> what it should become, in float64; made when it is asked for.

    `routes` are those of the reference, where both have to choose the same experts.
    """

    def __init__(
        self,
        kept: LoadedBase,
        rules: Mapping[str, Callable[[Tensor], Tensor]],
        limit: int = KEPT_BYTES,
        routes: Routes | None = None,
    ) -> None:
        """Remember the rules; `limit` is how many bytes of targets stay in memory."""
        self.routes = routes
        self.base = kept.base
        self.ties = kept.ties
        self.unties = kept.unties
        self.advance = kept.advance
        self._rules = dict(rules)
        self._made: Weights = {}
        self._left = limit

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that change."""
        return tuple(self._rules)

    def __getitem__(self, name: str) -> Tensor:
        """Return the target of one parameter; of one that doesn't change, what it is."""
        if name not in self._rules:
            return self.base[name].double()
        if name in self._made:
            return self._made[name]
        made = self._rules[name](self.base[name])
        if (size := made.numel() * made.element_size()) <= self._left:
            self._left -= size
            self._made[name] = made
        return made

    def on(self, name: str, weight: Tensor) -> Tensor:
        """Return what the rule of one parameter makes of another weight than the base's."""
        return self._rules[name](weight)

    def rounded(self, name: str) -> Tensor:
        """Return the target of one parameter in the dtype of the base's own."""
        return self[name].to(self.base[name].dtype)

    def parted(self) -> tuple[str, ...]:
        """Return the first name of each tied parameter whose names would have to differ."""
        return tuple(
            group[0]
            for group in self.ties
            if any(name in self._rules for name in group)
            and not all(_same(self[group[0]], self[other]) for other in group[1:])
        )


@contextmanager
def kept_as_loaded(
    loaded: LoadedModel,
    adapters: Iterable[Path],
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[LoadedBase]:
    """Take adapters off, and when the body ends, put back whatever PEFT left behind in the base.

    `unload` leaves the trained copy of a whole module in the model, and reading an adapter writes
    its biases over the base's.
    """
    import torch

    loaded.use(None)
    modules = dict(loaded.model.named_modules())
    own = parameters_of(loaded.model)
    written = {name for adapter in adapters for name in written_by(adapter) if name in own}
    before = {name: own[name].detach().clone() for name in written}

    def alone() -> None:
        loaded.use(None)
        for name, module in modules.items():
            if name and loaded.model.get_submodule(name) is not module:
                loaded.model.set_submodule(name, module)
        with torch.no_grad():
            for name, value in before.items():
                own[name].copy_(value)

    unties = bool(getattr(loaded.model.config, "tie_word_embeddings", False))
    try:
        yield LoadedBase({**own, **before}, ties_of(loaded.model), unties, alone, advance)
    finally:
        alone()


def merged_weights(targets: Targets) -> Weights:
    """Return parameter -> its target, rounded once; names that stay tied share one tensor.

    Raises:
        UserError: tied names would have to differ, and no setting of the config says so.
    """
    parted = targets.parted()
    merged = {}
    for name in targets.names:
        merged[name] = targets.rounded(name)
        targets.advance(1)
    for group in targets.ties:
        if group[0] in parted and not targets.unties:
            raise ModelError(
                f"can't be merged: {group[0]} is tied to {group[1]} and they would have to differ",
                expected="a base with tie_word_embeddings in its config, or both changed alike",
            )
        if group[0] not in parted and group[0] in merged:
            merged |= dict.fromkeys(group, merged[group[0]])
    return merged


def save_merged(loaded: LoadedModel, merged: Mapping[str, Tensor], out: Path) -> None:
    """Save the model with the merged weights, its tokenizer, template and generation config.

    Where tied parameters have become different, the config says that nothing is tied.
    """
    with no_bars():
        loaded.model.save_pretrained(str(out), state_dict={**loaded.model.state_dict(), **merged})
    config = json.loads((out / MODEL_CONFIG).read_text(encoding="utf-8"))
    for key in ("_name_or_path", "quantization_config"):  # a local path; what isn't so any more
        config.pop(key, None)
    if is_parted(loaded, merged):
        config["tie_word_embeddings"] = False
    (out / MODEL_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    save_tokenizer(loaded.tokenizer, out)


@contextmanager
def no_bars() -> Iterator[None]:
    """No progress bar of transformers for reading or writing a model."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def is_parted(loaded: LoadedModel, merged: Mapping[str, Tensor]) -> bool:
    """Tell whether names of one parameter of the base have become different parameters."""
    return any(len({id(merged.get(n)) for n in group}) > 1 for group in ties_of(loaded.model))


def unlike_saved(
    loaded: LoadedModel,
    merged: Mapping[str, Tensor],
    folder: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Return the modules whose saved weight isn't, bit for bit, the one that was to be saved."""
    import torch
    from safetensors.torch import load_file
    from transformers.core_model_loading import revert_weight_conversion

    saved: Weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        saved |= load_file(path)
    # In a file experts have names of their own, which transformers joins when it reads them, and
    # the parts of a wrapper may have others than in the model.
    wanted = revert_weight_conversion(loaded.model, {**parameters_of(loaded.model), **merged})
    there = {id(wanted[name]): name for name in wanted if name in saved}
    wrong = []
    for name, weight in wanted.items():
        # Of several names of one tensor, one is enough.
        kept = saved.get(name if name in saved else there.get(id(weight), name))
        if kept is None or not torch.equal(kept, weight.cpu()):
            wrong.append(name.removesuffix(".weight"))
        advance(1)
    return wrong


def ties_of(model: Any) -> list[list[str]]:
    """Return the names of each parameter of a model that has several."""
    groups: dict[int, list[str]] = {}
    for name, parameter in parameters_of(model).items():
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= _SAME * float(
        one.abs().max()
    )


def written_by(adapter: Path) -> list[str]:
    """Return the parameters of the base that reading an adapter writes over, if they exist."""
    from safetensors import safe_open

    if holds_changed(adapter):
        return sorted(read_changed(adapter))
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as file:
        keys = [key.removeprefix("base_model.model.") for key in file.keys()]  # noqa: SIM118
    return [key.replace(".base_layer.", ".") for key in keys]
