"""The check of a base's config.json before any library reads it.

A library builds whatever a config names: code from the Hub for attention, a million layers. What no
model has is refused by name; whether a model can be made of the rest is tried in a process of its
own (registry/intake/base.py).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError
from registry.store.filenames import MODEL_CONFIG, MODEL_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONTEXT_KEYS = ("n_positions", "max_position_embeddings", "n_ctx")
_DEEPEST = 16  # level of a configuration
_MOST_LAYERS = 10_000
_LARGEST = 1 << 26  # side of a weight: the largest vocabularies have 2^18
_KERNEL = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_BUILT_IN = re.compile(r"[a-z0-9_|]+")  # a repository's name has a slash
_LAYERS = re.compile(r"n_layers?|(num|n)_(\w+_)?layers")
_SIZE = re.compile(r"\w+_size|\w+_dim|n_embd|n_inner|d_model|num_\w*(heads|experts)|n_head")


def read_config(folder: Path, where: str) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        UserError: it is missing, isn't a JSON object, or has what no model has.
    """
    path = folder / MODEL_CONFIG
    config = _object(path, where)
    for key, value in _values(config, path, where):
        wrong = _wrong(key.rpartition(".")[2], value)
        if wrong is not None:
            raise ModelError(f"{path}: {key} is {value!r:.60}", where, expected=wrong)
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list) and all(type(n) is str for n in names)):
        raise ModelError(f"{path}: architectures is no list of names", where)
    return config


def read_object(path: Path, where: str) -> dict[str, Any]:
    """A JSON file beside a model that may be missing."""
    return _object(path, where) if path.is_file() else {}


def _object(path: Path, where: str) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        file = next((one.name for one in sorted(path.parent.glob("*.gguf"))), None)
        fix = f"name the file itself: model: …/{file}" if file else None
        what = f"no {path.name} in {path.parent}"
        raise ModelError(what, where, "a model folder", fix) from None
    except (OSError, ValueError, RecursionError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path} can't be read: {said}", where, "a JSON object") from None
    if not isinstance(given, dict):
        raise ModelError(f"{path} is no JSON object", where)
    return given


def _values(config: Mapping[str, Any], path: Path, where: str) -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted key, those of objects inside it too."""
    level: list[tuple[str, Any]] = list(config.items())
    for _ in range(_DEEPEST):
        yield from level
        level = [
            inner
            for key, value in level
            for inner in (
                [(f"{key}.{name}", one) for name, one in value.items()]
                if isinstance(value, dict)
                else [(key, one) for one in value if isinstance(one, dict | list)]
                if isinstance(value, list)
                else []
            )
        ]
        if not level:
            return
    raise ModelError(f"{path} is nested too deeply", where, f"{_DEEPEST} levels at most")


def _wrong(key: str, value: Any) -> str | None:
    """Return what a value should have been, where no model has it."""
    if _KERNEL.fullmatch(key):
        named = value.values() if isinstance(value, dict) else [value]
        fits = all(one is None or (type(one) is str and _BUILT_IN.fullmatch(one)) for one in named)
        return None if fits else "one of those in transformers, since no other code is fetched"
    if key in {"text_config", *CONTEXT_KEYS}:
        kind = dict if key == "text_config" else int
        expected = "an object" if kind is dict else "a whole number"
        return None if value is None or type(value) is kind else expected
    most = _MOST_LAYERS if _LAYERS.fullmatch(key) else _LARGEST if _SIZE.fullmatch(key) else None
    if most is None or not isinstance(value, int | float) or value <= most:
        return None
    return f"{most} at most"


def indexed(folder: Path) -> frozenset[str]:
    """The files that a model's list of weights names; none where there is no list.

    Raises:
        UserError: it is no list, or names anything but files beside it.
    """
    path = folder / MODEL_INDEX
    if not path.is_file():
        return frozenset()
    names = _object(path, str(folder)).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(one, str) and one.endswith(".safetensors") and "/" not in one and "\\" not in one
        for one in names.values()
    ):
        raise ModelError("weight_map names no files", str(path), "*.safetensors beside it")
    return frozenset(names.values())
