"""The loaded base: one copy in memory, on which adapters are switched.

`load_model` reads safetensors, in the dtype and quantisation of the spec, on the GPU if there is
one. `LoadedModel.use` puts a PEFT adapter on the loaded weights at any scale, or takes all of them
off again, so that one base in memory serves every evaluation and every training run.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry.chat.chat import Chat
from registry.errors import ModelError
from registry.models.base import (
    BaseIdentity,
    BaseSpec,
    check_weights,
    identify,
    locate,
    nano_folder,
)
from registry.models.changed import put_back, put_on
from registry.models.classes import causal_class
from registry.models.files import (
    adapter_key,
    check_adapter,
    holds_changed,
    saves_modules,
    weights_file,
    wrapped_parameters,
    written_parameters,
)
from registry.models.new_tokens import ids_of, initial_rows
from registry.models.quiet import quiet_libraries
from registry.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "BaseIdentity",
    "BaseSpec",
    "LoadedModel",
    "identify",
    "load_config",
    "load_model",
    "nano_folder",
]

ADAPTERS_IN_MEMORY = 4
ADAPTER_BYTES = 2**28
"""More adapters than ADAPTERS_IN_MEMORY are kept as long as their files are no larger together."""
TORCH_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class _BaseState:
    """What PEFT may leave changed in a base when it takes an adapter off.

    `unload` leaves the trained copy of a whole module (`modules_to_save`) in the model, and
    reading an adapter writes its biases over the base's.
    """

    modules: dict[str, Any]
    parameters: dict[str, torch.Tensor]

    @property
    def is_written(self) -> bool:
        return bool(self.parameters)

    @classmethod
    def of(cls, model: PreTrainedModel, written: Sequence[str]) -> _BaseState:
        own = dict(model.named_parameters())
        kept = {name: own[name].detach().clone() for name in written}
        return cls(dict(model.named_modules()), kept)

    def put_back(self, model: PreTrainedModel) -> None:
        import torch

        for name, module in self.modules.items():
            if name and model.get_submodule(name) is not module:
                model.set_submodule(name, module)
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in self.parameters.items():
                own[name].copy_(value)


@dataclass(frozen=True)
class _KeptAdapter:
    """An adapter in memory: the scalings of its modules, each with its own value; its bytes."""

    scalings: list[tuple[dict[str, float], float]]
    nbytes: int


@dataclass(frozen=True)
class _PutOnTensors:
    """Changed tensors that are on the base, and what was in their places."""

    folder: Path
    scale: float
    before: dict[str, torch.Tensor]


@dataclass
class LoadedModel:
    """A base in memory, in eval mode, with at most one active adapter.

    Attributes:
        model: the causal language model itself, never a wrapper: an adapter in use has replaced
            modules inside it, and `use(None)` puts the original modules back.
        tokenizer: its tokenizer.
        identity: which base this is.
        device: where it is computed.
        dtype: what it is computed in.
        context: the longest sequence it takes, in tokens.
        new_tokens: that the spec adds to its vocabulary.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: BaseIdentity
    device: torch.device
    dtype: torch.dtype
    context: int
    new_tokens: tuple[str, ...] = ()
    _peft: Any = field(default=None, init=False, repr=False)
    _kept: dict[str, _KeptAdapter] = field(default_factory=dict, init=False, repr=False)
    _wrapped: frozenset[str] = field(default=frozenset(), init=False, repr=False)
    _own: _BaseState | None = field(default=None, init=False, repr=False)
    _changed: _PutOnTensors | None = field(default=None, init=False, repr=False)
    _aside: bool = field(default=False, init=False, repr=False)  # adapters are there, and off

    @property
    def chat(self) -> Chat:
        """How it is spoken to: what of it needs no weights."""
        return Chat(self.tokenizer, self.identity)

    @property
    def new_rows(self) -> list[int]:
        """The rows of the embeddings that the new tokens have."""
        return ids_of(self.tokenizer, self.new_tokens)

    def use(self, adapter: Path | None, scale: float = 1.0) -> None:
        """Make the model the base alone, or the base with one adapter.

        Args:
            adapter: a folder with a PEFT adapter (safetensors) or changed tensors, or None for
                the base alone, exactly as it was loaded: no adapter module is left in it.
            scale: what the adapter's own scaling is multiplied by, for this use alone.

        Raises:
            UserError: no such adapter, pickled weights, an adapter that isn't made of module
                replacements (prefix or prompt tuning), or a scale on whole saved modules.
        """
        if adapter is None:
            self._strip()
            return
        if holds_changed(adapter):
            self._put_on(adapter, scale)
            return
        if self._changed is not None:
            self._strip()
        key = adapter_key(adapter)
        if key not in self._kept:
            if self._own is not None and self._own.is_written:
                self._strip()  # the one that is on has written over the base
            self._insert(adapter, key)
        # Last used last: the first is the one to drop when memory is needed.
        kept = self._kept[key] = self._kept.pop(key)
        if scale != 1.0 and saves_modules(adapter):
            raise ModelError(
                f"adapter {adapter} holds whole modules, which have no scale", expected="scale 1"
            )
        if self._aside:
            self._peft.base_model.enable_adapter_layers()
            self.model.requires_grad_(requires_grad=False)
            self._aside = False
        self._peft.set_adapter(key, inference_mode=True)
        for scaling, trained in kept.scalings:
            scaling[key] = trained * scale
        self.model.eval()

    def lay_aside(self) -> None:
        """Make the model the base alone, as `use(None)`, with its adapters kept in memory.

        An adapter that has written over the base is taken off all the same.
        """
        if self._peft is None or (self._own is not None and self._own.is_written):
            self._strip()
        elif not self._aside:
            self._peft.base_model.disable_adapter_layers()
            self._aside = True

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        """The base as it was loaded; after it, the adapter in use is in use again."""
        if self._changed is not None:
            on = self._changed
            self._strip()
            yield
            self._put_on(on.folder, on.scale)
            return
        if self._peft is None or self._aside:
            yield
            return
        with self._peft.disable_adapter():
            yield
        # PEFT lets the weights of an adapter that it switches on again be trained.
        self.model.requires_grad_(requires_grad=False)

    def _put_on(self, folder: Path, scale: float) -> None:
        self._strip()
        self._changed = _PutOnTensors(folder, scale, put_on(self.model, folder, scale))

    def _insert(self, adapter: Path, key: str) -> None:
        from safetensors import SafetensorError

        with quiet_libraries():
            from peft import PeftModel

        check_adapter(adapter)
        written = written_parameters(adapter, self.model)
        wrapped = wrapped_parameters(adapter)
        if written or wrapped != self._wrapped:
            self._strip()  # it will be alone, or beside those with the same ones
        self._wrapped = wrapped
        if self._own is None:
            self._own = _BaseState.of(self.model, written)
        nbytes = weights_file(adapter).stat().st_size
        while len(self._kept) >= ADAPTERS_IN_MEMORY and self._nbytes + nbytes > ADAPTER_BYTES:
            oldest = next(iter(self._kept))
            self._peft.delete_adapter(oldest)
            del self._kept[oldest]
        try:
            with _only_our_warnings():
                if self._peft is None:
                    self._peft = PeftModel.from_pretrained(
                        self.model, str(adapter), adapter_name=key
                    )
                else:
                    self._peft.load_adapter(str(adapter), adapter_name=key)
        except (SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(
                f"adapter {adapter.name[:12]} can't be put on this base: {said}",
                fix="`gapmend fsck` says whether its files are damaged",
            ) from error
        scalings = [
            (module.scaling, float(module.scaling[key]))
            for module in self.model.modules()
            if isinstance(getattr(module, "scaling", None), dict) and key in module.scaling
        ]
        self._kept[key] = _KeptAdapter(scalings, nbytes)

    @property
    def _nbytes(self) -> int:
        return sum(kept.nbytes for kept in self._kept.values())

    def _strip(self) -> None:
        if self._changed is not None:
            put_back(self.model, self._changed.before)
            self._changed = None
        if self._peft is None:
            return
        # `unload` puts each original module back where its wrapper is; nothing is merged.
        self._peft.unload()
        self._peft = None
        self._aside = False
        self._kept.clear()
        if self._own is not None:
            self._own.put_back(self.model)
            self._own = None
        # PEFT leaves these on the model, and transformers then believes in an adapter.
        for name in ("peft_config", "_hf_peft_config_loaded"):
            if name in vars(self.model):
                delattr(self.model, name)
        self.model.requires_grad_(requires_grad=False)
        self.model.eval()


def load_config(name: str, spec: BaseSpec, root: Path) -> PreTrainedConfig:
    """A base's config, without its weights.

    Raises:
        UserError: as `identify`, or transformers can't read it.
    """
    from transformers import AutoConfig

    folder = locate(name, spec, root).path
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the config can't be read: {error}", f"bases.{name}") from error


def load_model(name: str, spec: BaseSpec, root: Path, *, threads: int | None = None) -> LoadedModel:
    """Load a base: safetensors only, weights in memory once, eval mode, no gradients.

    Args:
        name: its name in the spec.
        spec: what the spec says about it.
        root: the workspace, where relative folders start.
        threads: how many CPU threads torch may use; None leaves torch's own choice.

    Raises:
        UserError: as `identify`, or the model or its tokenizer can't be loaded.
    """
    import torch

    where = f"bases.{name}"
    identity = identify(name, spec, root)
    folder = locate(name, spec, root, weights=True).path
    check_weights(folder, where)
    if threads is not None:
        torch.set_num_threads(threads)
    # Of several processes that a launcher starts on a machine, each has a GPU of its own.
    own = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", own) if torch.cuda.is_available() else torch.device("cpu")
    dtype: torch.dtype = getattr(torch, TORCH_DTYPES[identity.dtype])
    with _only_our_warnings():
        tokenizer = load_tokenizer(folder, spec, where)
        model = _weights(folder, spec, where, device, dtype)
        if spec.new_tokens:
            initial_rows(model, tokenizer, spec.new_tokens)
    model.requires_grad_(requires_grad=False)
    model.eval()
    context = identity.context
    return LoadedModel(model, tokenizer, identity, device, dtype, context, spec.new_tokens)


def _weights(
    folder: Path, spec: BaseSpec, where: str, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoConfig

    quantized = {"quantization_config": _quantization(spec, dtype)} if spec.quantize else {}
    placed = {"device_map": {"": device}} if spec.quantize or device.type != "cpu" else {}
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
        model, read = causal_class(config, where).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be told of them, instead of a printed table
            **quantized,
            **placed,
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(f"the model can't be loaded: {error}", where) from error
    # What isn't in the files, transformers would draw at random, and only warn.
    wrong = sorted({*read["missing_keys"], *(str(key[0]) for key in read["mismatched_keys"])})
    if wrong:
        raise ModelError(
            f"{len(wrong)} weights are missing or of another shape, the first is {wrong[0]}",
            where,
            expected="all that config.json makes",
            fix="save or fetch the model again",
        )
    if spec.quantize:
        for module in model.modules():
            # On CPUs with avx512_bf16 a forward without gradients in eval mode repacks the
            # weights, and every gradient after it is silently wrong.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return model


def _quantization(spec: BaseSpec, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if spec.quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=spec.quantize, bnb_4bit_compute_dtype=dtype
    )


@contextmanager
def _only_our_warnings() -> Iterator[None]:
    """No progress bar for reading a file, and no warning that libraries address to each other."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet_libraries():
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
