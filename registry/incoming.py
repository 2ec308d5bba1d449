"""Adapters trained elsewhere, checked before they are taken in. Nothing in them is trusted.

A folder from outside may name another base, carry code, a path, a pickle, a header that lies about
its length, or tensors that the base has no place for: PEFT would leave those out without a word,
and the adapter would answer as the base does. Each of these is refused by name.
"""

from __future__ import annotations

import json
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from registry.adapters import CONFIG, WEIGHTS, read_adapter_config, weights_file
from registry.errors import UserError
from registry.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.identity import BaseIdentity, BaseSpec

MOST_CONFIG_BYTES = 1 << 20
MOST_HEADER_BYTES = 16 << 20  # of safetensors: 100,000 tensors take about 12 MiB
_CHANGING = ("pissa", "olora", "corda", "loftq")
_NAMED = 3  # tensors that a message names


@dataclass(frozen=True, slots=True)
class Declared:
    """The base that a configuration says it is for; `revision` is a commit, where it names one."""

    base: str
    revision: str | None


def check_folder(folder: Path) -> Declared:
    """Check the files of an adapter folder without a model; returns the base that it names.

    Raises:
        UserError: no adapter, a pickle, a link, an oversized or damaged file, code, a path.
    """
    for name in (CONFIG, WEIGHTS):
        if (folder / name).is_symlink() and not _is_cache_link(folder / name):
            raise UserError(f"{name} is a link", str(folder), "the file itself")
    path = folder / CONFIG
    if path.is_file() and path.stat().st_size > MOST_CONFIG_BYTES:
        raise UserError(
            f"{CONFIG} has {path.stat().st_size} bytes", str(folder), f"{MOST_CONFIG_BYTES} at most"
        )
    config = read_adapter_config(folder)
    if config["peft_type"] != "LORA":
        raise UserError(
            f"it is a {config['peft_type']} adapter",
            str(path),
            "LoRA, or a kind of it that PEFT has",
        )
    _refuse_ways_out(config, path)
    check_header(weights_file(folder))
    return Declared(str(config.get("base_model_name_or_path") or ""), config.get("revision"))


def check_header(path: Path) -> None:
    """Check a safetensors header against the file, before any library reads it.

    Raises:
        UserError: it is too long, not JSON, or doesn't fit the file; or a tensor's bytes overlap.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, MOST_HEADER_BYTES):
                raise ValueError(f"its header claims {length} bytes")  # noqa: TRY301
            header = json.loads(file.read(length))
        spans = sorted(
            tuple(one["data_offsets"]) for name, one in header.items() if name != "__metadata__"
        )
        ends = [0, *(end for _, end in spans)]
        if [start for start, _ in spans] != ends[:-1] or 8 + length + ends[-1] != size:
            raise ValueError("its tensors don't fill the file")  # noqa: TRY301
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"not a whole safetensors file: {error}",
            str(path),
            expected="weights as save_pretrained writes them",
        ) from None


def base_for(
    declared: Declared,
    identities: Mapping[str, BaseIdentity],
    chosen: str | None,
    where: str,
) -> str:
    """Return the name in the spec of the base that an adapter belongs to. Pure.

    Args:
        declared: what its configuration says.
        identities: the spec's bases by name.
        chosen: the base that the user named, if any. It settles what the configuration leaves open
            (no base, a path of some machine) and overrules nothing that it says.
        where: for the message.

    Raises:
        UserError: none fits, or it names another one.
    """
    fitting = [name for name, base in identities.items() if _is_for(declared, base)]
    if chosen is None and len(fitting) == 1:
        return fitting[0]
    if chosen is not None and (chosen in fitting or _is_open(declared)):
        return chosen
    known = ", ".join(f"{name} ({base.source})" for name, base in identities.items())
    if not declared.base or len(fitting) > 1 or _is_open(declared):
        said = "several bases fit" if fitting else f"it names no base but '{declared.base}'"
        raise UserError(said, where, f"one of {known}", "name the base with --base")
    at = f" at {declared.revision}" if declared.revision else ""
    raise UserError(
        f"it was trained on {declared.base}{at}, which is no base of the spec",
        where,
        expected=f"one of {known}",
        fix="add that base to gapmend.yaml; if it has the very same weights under another name, "
        "write that name into base_model_name_or_path",
    )


def check_fits(folder: Path, base: str, spec: BaseSpec, root: Path) -> None:
    """Check that every tensor of an adapter has its place, and shape, in the base.

    The base is made without weights, so that this costs no memory.

    Raises:
        UserError: tensors are missing, left over, of another shape, or not finite.
    """
    from safetensors import safe_open

    wanted = _places(folder, base, spec, root)
    found: dict[str, tuple[int, ...]] = {}
    with safe_open(folder / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            tensor = file.get_tensor(name)
            found[name] = tuple(tensor.shape)
            if not bool(tensor.isfinite().all()):
                raise UserError(f"{name} has values that are not finite", str(folder / WEIGHTS))
    wrong = {
        "no place in the base": sorted(found.keys() - wanted.keys()),
        "missing": sorted(wanted.keys() - found.keys()),
        "of another shape": sorted(n for n in found.keys() & wanted if found[n] != wanted[n]),
    }
    for what, names in wrong.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise UserError(
                f"{what}: {', '.join(names[:_NAMED])}{more}",
                str(folder / WEIGHTS),
                expected=f"the tensors that {CONFIG} makes of base {base}",
            )


def _places(folder: Path, base: str, spec: BaseSpec, root: Path) -> dict[str, tuple[int, ...]]:
    import torch
    from transformers import AutoModelForCausalLM

    from registry.models import load_config

    with quiet_libraries():
        from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    config = load_config(base, spec, root)
    try:
        settings = PeftConfig.from_pretrained(str(folder))
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            empty = AutoModelForCausalLM.from_config(
                config, trust_remote_code=spec.trust_remote_code
            )
            model = get_peft_model(empty, settings)
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"PEFT can't put it on base {base}: {said}", str(folder / CONFIG)
        ) from error
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _is_for(declared: Declared, base: BaseIdentity) -> bool:
    name = base.public_name
    if declared.base != name and not (_is_path(declared.base) and _last(declared.base) == name):
        return False
    return not (base.commit and declared.revision and declared.revision != base.commit)


def _is_open(declared: Declared) -> bool:
    return not declared.base or _is_path(declared.base)


def _is_path(name: str) -> bool:
    return name.startswith(("/", "~", ".")) or bool(PureWindowsPath(name).drive)


def _last(path: str) -> str:
    return PureWindowsPath(path).name  # knows both kinds of slash


def _is_cache_link(path: Path) -> bool:
    """Whether a link is of the Hub's cache: snapshots/COMMIT/NAME -> blobs beside them."""
    parts = path.parts
    if "snapshots" not in parts:
        return False
    cache = Path(*parts[: len(parts) - 1 - parts[::-1].index("snapshots")])
    return path.resolve().is_relative_to(cache.resolve())


def _refuse_ways_out(config: Mapping[str, Any], path: Path) -> None:
    """Refuse what a configuration has no need of: code, and paths to anywhere."""
    init = str(config.get("init_lora_weights"))
    if init.startswith(_CHANGING):
        raise UserError(
            f"{init} changes the base's own weights, and the adapter holds for those alone",
            f"{path}: init_lora_weights",
            expected="an adapter for the base as it is",
            fix="save it again with path_initial_model_for_weight_conversion",
        )
    if config.get("auto_mapping"):
        raise UserError(
            "auto_mapping makes the loader run the code it names", f"{path}: auto_mapping", "null"
        )
    for key, value in config.items():
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            climbs = isinstance(text, str) and ".." in PureWindowsPath(text).parts
            if climbs or (key != "base_model_name_or_path" and _is_rooted(text)):
                raise UserError(f"{key} is a path: {text}", f"{path}: {key}", "no path")


def _is_rooted(text: object) -> bool:
    if not isinstance(text, str) or "\n" in text:
        return False
    return text.startswith(("/", "~/", "file:")) or bool(PureWindowsPath(text).drive)
