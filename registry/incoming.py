"""Adapters trained elsewhere, checked before they are taken in. Nothing in them is trusted.

A folder from outside may name another base, carry code, a path, a pickle, a header that lies about
its length, or tensors that the base has no place for: PEFT would leave those out without a word,
and the adapter would answer as the base does. Each of these is refused by name.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from registry.adapters import CONFIG, WEIGHTS, read_adapter_config, weights_file
from registry.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.identity import BaseIdentity, BaseSpec

    Shapes = dict[str, tuple[int, ...]]

MOST_CONFIG_BYTES = 1 << 20
MOST_HEADER_BYTES = 16 << 20  # of safetensors: 100,000 tensors take about 12 MiB
_CHANGING = ("pissa", "olora", "corda", "loftq")
_LARGEST = 1_000_000  # rank or alpha
_DEEPEST = 16  # level of a configuration
_LARGEST_SIDE = 1 << 48  # of a tensor
_MOST_SIDES = 16
_SECONDS = 60  # of CPU, for PEFT to put an adapter on a base; a big one takes some
_MEMORY = 16 << 30  # bytes of addresses; torch maps several GiB
_LONGEST_PATTERN = 10_000
_NESTED = re.compile(r"[+*}]\)[+*{]")  # (a+)+ and its like take exponential time
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
        _refuse_no_file(folder / name)
    path = folder / CONFIG
    if path.is_file() and path.stat().st_size > MOST_CONFIG_BYTES:
        raise UserError(
            f"{CONFIG} has {path.stat().st_size} bytes", str(folder), f"{MOST_CONFIG_BYTES} at most"
        )
    try:
        config = read_adapter_config(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"it can't be read ({type(error).__name__})", str(path)) from None
    _refuse_depth(config, path)
    if config["peft_type"] != "LORA":
        raise UserError(
            f"it is a {config['peft_type']} adapter",
            str(path),
            "LoRA, or a kind of it that PEFT has",
        )
    _refuse_ways_out(config, path)
    _refuse_numbers(config, path)
    _refuse_patterns(config, path)
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
        notes = header.get("__metadata__", {})
        if not all(isinstance(note, str) for note in notes.values()):
            raise ValueError("its metadata are no texts")  # noqa: TRY301
        for name, one in header.items():
            if name != "__metadata__" and not _fills(one):
                raise ValueError("a tensor's shape doesn't fit its bytes")  # noqa: TRY301
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
    wanted = _places(folder, base, spec, root)
    found = _finite_shapes(folder / WEIGHTS)
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


def _finite_shapes(path: Path) -> Shapes:
    from safetensors import SafetensorError, safe_open

    found: Shapes = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                found[name] = tuple(tensor.shape)
                wide = tensor.double() if tensor.is_floating_point() else tensor
                if not bool(wide.isfinite().all()):
                    raise UserError(f"{name} has values that are not finite", str(path))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"its weights can't be read: {_first_line(error)}", str(path)) from None
    return found


def _places(folder: Path, base: str, spec: BaseSpec, root: Path) -> Shapes:
    """The name and shape of every tensor that PEFT makes of a configuration on a base.

    PEFT matches the configuration's regular expressions, and some never end: this happens in a
    process of its own, with little time and memory.
    """
    from registry.identity import locate

    where = str(folder / CONFIG)
    model = locate(base, spec, root).path.resolve()
    given = [str(folder.resolve()), str(model), spec.trust_remote_code, _SECONDS]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "registry.incoming"],
            input=json.dumps(given),
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS * 3,  # of this machine's time; the limit inside counts CPU seconds
            cwd=Path(__file__).resolve().parent.parent,
            # A driver maps more addresses than the limit, and nothing here is computed.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"putting it on base {base} doesn't end", where) from None
    if done.returncode < 0:
        raise UserError(f"putting it on base {base} takes too much time or memory", where)
    if done.returncode:  # the last line of what PEFT raised, or of what we say
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"PEFT can't put it on base {base}: {said}", where)
    places = json.loads(done.stdout.splitlines()[-1])
    return {name: tuple(shape) for name, shape in places.items()}


def _limit(seconds: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _shapes(folder: str, model: str, *, trust_remote_code: bool) -> dict[str, list[int]]:
    """As `_places`, in this process."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    settings = PeftConfig.from_pretrained(folder)
    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
            put = get_peft_model(empty, settings)
        state = get_peft_model_state_dict(put, save_embedding_layers=False)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        sys.exit(_first_line(error))
    return {name: list(tensor.shape) for name, tensor in state.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _refuse_no_file(path: Path) -> None:
    """Refuse what stands in a file's place: reading a pipe or a device may never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return  # said by whoever needs it
    except OSError as error:
        raise UserError(f"{path.name} can't be read ({type(error).__name__})", str(path)) from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{path.name} is no file", str(path), "a file of its own")


def _refuse_depth(config: Mapping[str, Any], path: Path) -> None:
    level: list[Any] = [config]
    for _ in range(_DEEPEST):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return
    raise UserError("it is nested too deeply", str(path), f"{_DEEPEST} levels at most")


def _fills(tensor: Mapping[str, Any]) -> bool:
    """Whether the shape of a tensor in a safetensors header takes just its bytes."""
    sides, offsets = tensor["shape"], tensor["data_offsets"]
    whole = [*sides, *offsets]
    if len(offsets) != 2 or len(sides) > _MOST_SIDES:  # noqa: PLR2004 - start and end
        return False
    if any(type(one) is not int or not 0 <= one < _LARGEST_SIDE for one in whole):
        return False
    dtype = re.match(r"(?:[A-Z]+?)([0-9]+)(?:_|$)", tensor["dtype"])  # F32, BF16, F8_E4M3
    bits = 8 if tensor["dtype"] == "BOOL" else int(dtype[1]) if dtype else 0
    return bits > 0 and math.prod(sides) * bits == 8 * (offsets[1] - offsets[0])


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


def _refuse_numbers(config: Mapping[str, Any], path: Path) -> None:
    """Refuse ranks, scales and patterns that no adapter was ever trained with."""
    for key, patterns, is_fine, expected in (
        ("r", "rank_pattern", _is_rank, f"a whole number from 1 to {_LARGEST}"),
        ("lora_alpha", "alpha_pattern", _is_alpha, f"a number up to {_LARGEST}"),
    ):
        each = config.get(patterns) or {}
        if not isinstance(each, dict):
            raise UserError(f"{patterns} is no object", str(path))
        for name, value in [(key, config.get(key, 1)), *each.items()]:
            if not is_fine(value):
                raise UserError(f"{name!r:.60} is {value!r:.60}", str(path), expected)
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise UserError(f"task_type is {config['task_type']!r:.60}", str(path), "CAUSAL_LM")


def _is_rank(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and value is not True and 0 < abs(value) <= _LARGEST


def _refuse_patterns(config: Mapping[str, Any], path: Path) -> None:
    """Refuse regular expressions that are none, and the plainest of those that never end."""
    texts = [
        (key, text)
        for key in ("target_modules", "exclude_modules", "layers_pattern")
        for text in _patterns(key, config.get(key))
    ]
    texts += [(k, text) for k in ("rank_pattern", "alpha_pattern") for text in config.get(k) or {}]
    for key, text in texts:
        if _NESTED.search(text) or len(text) > _LONGEST_PATTERN:
            raise UserError(
                f"{key}: the pattern {text[:60]!r} may never end", str(path), "a plain one"
            )
        try:
            with warnings.catch_warnings(action="ignore"):
                re.compile(text)
                if key.endswith("_pattern"):
                    re.compile(rf"(.*\.)?({text})$")  # as PEFT does
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(
                f"{key}: the pattern {text[:60]!r} is not valid: {_first_line(error)}", str(path)
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


if __name__ == "__main__":
    _folder, _model, _trusted, _seconds = json.loads(sys.stdin.read())
    _limit(_seconds)
    _found = _shapes(_folder, _model, trust_remote_code=_trusted)
    sys.stdout.write("\n" + json.dumps(_found) + "\n")
