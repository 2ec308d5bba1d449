"""The files of a folder with an adapter, a model or a tokenizer, before anything loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.store.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CHANGED_WEIGHTS,
    TOKENIZER,
    TOKENIZER_CONFIG,
)
from registry.store.hashing import digest

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)


def adapter_key(adapter: Path) -> str:
    """A name for the adapter's content as far as the file system tells: paths are reused."""
    state = [
        [p.name, p.stat().st_size, p.stat().st_mtime_ns]
        for p in sorted(adapter.glob("adapter_*"))
        if p.is_file()
    ]
    return "a" + str(digest([str(adapter.resolve()), state]))[:16]


def written_parameters(adapter: Path, model: PreTrainedModel) -> list[str]:
    """Return the parameters of the base that reading an adapter writes over (trained biases)."""
    from safetensors import SafetensorError, safe_open

    # An adapter that is on has wrapped the modules.
    own = {name.replace(".base_layer.", ".") for name, _ in model.named_parameters()}
    try:
        with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as file:
            keys = [key.removeprefix("base_model.model.") for key in file.keys()]  # noqa: SIM118
    except SafetensorError:
        return []  # whoever reads it says what is wrong with it
    bare = [key.replace(".base_layer.", ".") for key in keys if ".lora_" not in key]
    return sorted(key for key in bare if key in own and key.endswith(".bias"))


def wrapped_parameters(adapter: Path) -> frozenset[str]:
    """Return the parameters that an adapter changes by themselves, such as those of experts.

    PEFT has no two adapters on a model that change different ones so.
    """
    return frozenset(_config_of(adapter).get("target_parameters") or ())


def check_adapter(adapter: Path) -> None:
    """Refuse a folder that holds no adapter, or one that is no replacement of modules.

    Raises:
        UserError: it is so.
    """
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise ModelError(f"no adapter in {adapter}", expected="a folder with adapter_config.json")
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"adapter {adapter} has no adapter_model.safetensors",
            expected="safetensors: a pickle can run code when it is loaded",
        )
    config = _config_of(adapter)
    if "target_modules" not in config:
        kind = config.get("peft_type", "unknown")
        raise ModelError(f"adapter {adapter} is of type {kind}", expected="LoRA or its relatives")


def saves_modules(adapter: Path) -> bool:
    """Whether an adapter holds whole modules beside its matrices."""
    return bool(_config_of(adapter).get("modules_to_save"))


def _config_of(adapter: Path) -> dict[str, Any]:
    path = adapter / ADAPTER_CONFIG
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"not the JSON of an adapter ({error})",
            str(path),
            fix="`gapmend fsck` says whether it is damaged",
        ) from error


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return the PEFT configuration in a folder.

    Raises:
        UserError: there is none, or it isn't one.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"no {ADAPTER_CONFIG} here", where=str(folder), expected="a PEFT adapter"
        ) from None
    except (ValueError, RecursionError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"not JSON: {said}", where=str(path)) from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise ModelError("no peft_type in it", where=str(path), expected="a PEFT configuration")
    return config


def weights_file(folder: Path) -> Path:
    """Return the file with an adapter's weights.

    Raises:
        UserError: there is none, or it is a pickle.
    """
    path = folder / ADAPTER_WEIGHTS
    if path.is_file():
        return path
    pickled = [name for name in _PICKLES if (folder / name).exists()]
    what = f"{pickled[0]} is a pickle, which can run code when read" if pickled else "no weights"
    raise ModelError(
        what, where=str(folder), expected=ADAPTER_WEIGHTS, fix="save it as safetensors"
    )


def holds_changed(folder: Path) -> bool:
    """Whether a folder holds changed tensors of a base."""
    return (folder / CHANGED_WEIGHTS).is_file()
