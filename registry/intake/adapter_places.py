"""The check that every tensor of an adapter from outside has its place, and shape, in its base."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from registry.models.base import BaseSpec

    Shapes = dict[str, tuple[int, ...]]

_SECONDS = 60  # of CPU, for PEFT to put an adapter on a base; a big one takes some
_WALL = 30  # times as long by the clock: on a busy machine a process gets little of it
_MEMORY = 16 << 30  # bytes of addresses; torch maps several GiB
_NAMED = 3  # tensors that a message names


def check_fits(folder: Path, base: str, spec: BaseSpec, root: Path) -> None:
    """Check that every tensor of an adapter has its place, and shape, in the base.

    The base is made without weights, so that this costs no memory.

    Raises:
        UserError: tensors are missing, left over, of another shape, or not finite.
    """
    wanted = _places(folder, base, spec, root)
    found = _finite_shapes(folder / ADAPTER_WEIGHTS)
    wrong = {
        "no place in the base": sorted(found.keys() - wanted.keys()),
        "missing": sorted(wanted.keys() - found.keys()),
        "of another shape": sorted(n for n in found.keys() & wanted if found[n] != wanted[n]),
    }
    for what, names in wrong.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise ModelError(
                f"{what}: {', '.join(names[:_NAMED])}{more}",
                str(folder / ADAPTER_WEIGHTS),
                expected=f"the tensors that {ADAPTER_CONFIG} makes of base {base}",
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
                    raise ModelError(f"{name} has values that are not finite", str(path))
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"its weights can't be read: {_first_line(error)}", str(path)) from None
    return found


def _places(folder: Path, base: str, spec: BaseSpec, root: Path) -> Shapes:
    """The name and shape of every tensor that PEFT makes of a configuration on a base.

    PEFT matches the configuration's regular expressions, and some never end: this happens in a
    process of its own, with little time and memory.
    """
    from registry.models.base import locate

    where = str(folder / ADAPTER_CONFIG)
    model = locate(base, spec, root).path.resolve()
    given = [str(folder.resolve()), str(model), spec.trust_remote_code, _SECONDS]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "registry.intake.adapter_places"],
            input=json.dumps(given),
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS * _WALL,
            cwd=Path(__file__).resolve().parents[2],
            # A driver maps more addresses than the limit, and nothing here is computed.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"putting it on base {base} doesn't end", where) from None
    if done.returncode < 0:
        raise ModelError(f"putting it on base {base} takes too much time or memory", where)
    if done.returncode:  # the last line of what PEFT raised, or of what we say
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"PEFT can't put it on base {base}: {said}", where)
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
    from transformers import AutoConfig

    from registry.models.classes import causal_class

    config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    settings = PeftConfig.from_pretrained(folder)
    try:
        with torch.device("meta"):
            empty = causal_class(config).from_config(config, trust_remote_code=trust_remote_code)
            put = get_peft_model(empty, settings)
        state = get_peft_model_state_dict(put, save_embedding_layers=False)
    # What PEFT raises for a configuration that doesn't suit the base; anything else is a fault.
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        sys.exit(_first_line(error))
    return {name: list(tensor.shape) for name, tensor in state.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


if __name__ == "__main__":
    _folder, _model, _trusted, _seconds = json.loads(sys.stdin.read())
    _limit(_seconds)
    _found = _shapes(_folder, _model, trust_remote_code=_trusted)
    sys.stdout.write("\n" + json.dumps(_found) + "\n")
