"""The check of an adapter_config.json from outside: numbers, patterns and names, no way out."""

from __future__ import annotations

import re
import warnings
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CHANGING = ("pissa", "olora", "corda", "loftq")
_LARGEST = 1_000_000  # rank or alpha
_DEEPEST = 16  # level of a configuration
_LONGEST_PATTERN = 10_000


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Check a parsed configuration; `path` is for messages.

    Raises:
        UserError: no LoRA, code to run, a path, a number or pattern that no adapter has.
    """
    _refuse_depth(config, path)
    if config["peft_type"] != "LORA":
        raise ModelError(
            f"it is a {config['peft_type']} adapter",
            str(path),
            "LoRA, or a kind of it that PEFT has",
        )
    _refuse_ways_out(config, path)
    _refuse_numbers(config, path)
    _refuse_patterns(config, path)


def _refuse_depth(config: Mapping[str, Any], path: Path) -> None:
    level: list[Any] = [config]
    for _ in range(_DEEPEST):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return
    raise ModelError("it is nested too deeply", str(path), f"{_DEEPEST} levels at most")


def _refuse_ways_out(config: Mapping[str, Any], path: Path) -> None:
    """Refuse what a configuration has no need of: code, and paths to anywhere."""
    init = str(config.get("init_lora_weights"))
    if init.startswith(_CHANGING):
        raise ModelError(
            f"{init} changes the base's own weights, and the adapter holds for those alone",
            f"{path}: init_lora_weights",
            expected="an adapter for the base as it is",
            fix="save it again with path_initial_model_for_weight_conversion",
        )
    if config.get("auto_mapping"):
        raise ModelError(
            "auto_mapping makes the loader run the code it names", f"{path}: auto_mapping", "null"
        )
    for key, value in config.items():
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            climbs = isinstance(text, str) and ".." in PureWindowsPath(text).parts
            if climbs or (key != "base_model_name_or_path" and _is_rooted(text)):
                raise ModelError(f"{key} is a path: {text}", f"{path}: {key}", "no path")


def _refuse_numbers(config: Mapping[str, Any], path: Path) -> None:
    """Refuse ranks, scales and patterns that no adapter was ever trained with."""
    for key, patterns, is_fine, expected in (
        ("r", "rank_pattern", _is_rank, f"a whole number from 1 to {_LARGEST}"),
        ("lora_alpha", "alpha_pattern", _is_alpha, f"a number up to {_LARGEST}"),
    ):
        each = config.get(patterns) or {}
        if not isinstance(each, dict):
            raise ModelError(f"{patterns} is no object", str(path))
        for name, value in [(key, config.get(key, 1)), *each.items()]:
            if not is_fine(value):
                raise ModelError(f"{name!r:.60} is {value!r:.60}", str(path), expected)
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelError(f"task_type is {config['task_type']!r:.60}", str(path), "CAUSAL_LM")


def _is_rank(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and value is not True and 0 < abs(value) <= _LARGEST


def _refuse_patterns(config: Mapping[str, Any], path: Path) -> None:
    """Refuse regular expressions that are none; those that never end are stopped when matched."""
    texts = [
        (key, text)
        for key in ("target_modules", "exclude_modules", "layers_pattern")
        for text in _patterns(key, config.get(key))
    ]
    texts += [(k, text) for k in ("rank_pattern", "alpha_pattern") for text in config.get(k) or {}]
    for key, text in texts:
        if len(text) > _LONGEST_PATTERN:
            raise ModelError(
                f"{key}: a pattern of {len(text)} characters", str(path), f"{_LONGEST_PATTERN}"
            )
        try:
            with warnings.catch_warnings(action="ignore"):
                re.compile(text)
                if key.endswith("_pattern"):
                    re.compile(rf"(.*\.)?({text})$")  # as PEFT does
        except (re.error, RecursionError, OverflowError) as error:
            raise ModelError(
                f"{key}: the pattern {text[:60]!r} is not valid: {error}", str(path)
            ) from None


def _patterns(key: str, value: object) -> list[str]:
    """What of a value PEFT takes for regular expressions: a list of modules is of plain names."""
    if isinstance(value, str):
        return [value]
    listed = value if key == "layers_pattern" and isinstance(value, list) else []
    return [one for one in listed if isinstance(one, str)]


def _is_rooted(text: object) -> bool:
    if not isinstance(text, str) or "\n" in text:
        return False
    return text.startswith(("/", "~/", "file:")) or bool(PureWindowsPath(text).drive)
