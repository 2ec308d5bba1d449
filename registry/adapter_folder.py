"""What a folder with an adapter says before it is put on a base."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.errors import UserError
from registry.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


def adapter_key(adapter: Path) -> str:
    """A name for the adapter's content as far as the file system tells: paths are reused."""
    from registry.hashing import digest

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


def check_adapter(adapter: Path) -> None:
    """Refuse a folder that holds no adapter, or one that is no replacement of modules.

    Raises:
        UserError: it is so.
    """
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise UserError(f"no adapter in {adapter}", expected="a folder with adapter_config.json")
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"adapter {adapter} has no adapter_model.safetensors",
            expected="safetensors: a pickle can run code when it is loaded",
        )
    config = _config_of(adapter)
    if "target_modules" not in config:
        kind = config.get("peft_type", "unknown")
        raise UserError(f"adapter {adapter} is of type {kind}", expected="LoRA or its relatives")


def saves_modules(adapter: Path) -> bool:
    """Whether an adapter holds whole modules beside its matrices."""
    return bool(_config_of(adapter).get("modules_to_save"))


def _config_of(adapter: Path) -> dict[str, Any]:
    path = adapter / ADAPTER_CONFIG
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"not the JSON of an adapter ({error})",
            str(path),
            fix="`gapmend fsck` says whether it is damaged",
        ) from error
