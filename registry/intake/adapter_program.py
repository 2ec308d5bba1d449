"""The process that lets PEFT put an adapter from outside on a base without weights.

`python -m` with this module, JSON on stdin. How the adapter fits is its output; where PEFT knows
the tensors under other names, what it makes of them is written beside it. The base is never read.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.store.filenames import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor

_MEMORY = 16 << 30  # bytes of addresses; torch maps several GiB
_PREFIX = "base_model.model."
_LAYER = ".base_layer."
_NAME = "default"


def main() -> None:
    """Read what to fit on stdin, write how it fits, or leave with what is wrong."""
    folder, model, trusted, place, seconds = json.loads(sys.stdin.read())
    _limit(seconds)
    try:
        found = _fit(Path(folder), model, Path(place), trust_remote_code=trusted)
    # What PEFT raises for a configuration that doesn't suit the base; anything else is a fault.
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        sys.exit(next(iter(str(error).splitlines()), type(error).__name__))
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def _limit(seconds: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _fit(folder: Path, model: str, place: Path, *, trust_remote_code: bool) -> dict[str, Any]:
    """Return what `adapter_places.Fit` says, as JSON has it."""
    import torch
    from peft import PeftConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import AutoConfig
    from transformers.core_model_loading import revert_weight_conversion

    from registry.models.classes import causal_class

    config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    settings = PeftConfig.from_pretrained(folder)
    before = settings.to_dict()
    with torch.device("meta"):
        empty = causal_class(config).from_config(config, trust_remote_code=trust_remote_code)
        own = empty.state_dict()
        tied = dict(getattr(empty, "all_tied_weights_keys", None) or {})
        put = get_peft_model(empty, settings)
    wanted = _state(put)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    along: dict[str, list[str]] = {}
    for name in sorted(tensors.keys() - wanted.keys()):
        bare = name.removeprefix(_PREFIX).replace(_LAYER, ".")
        if bare in own:
            known = {one: own[one] for one in (bare, tied.get(bare, bare))}
            # In a file the parts of a wrapper may have other names than in the model.
            along[name] = list({**known, **revert_weight_conversion(empty, dict(known))})
            del tensors[name]
    wrong: dict[str, list[str]] = {}
    if tensors.keys() == wanted.keys():
        shaped = [name for name, one in tensors.items() if one.shape != wanted[name].shape]
        wrong = {"of another shape": sorted(shaped)}
    else:
        left_over, missing = _loaded(put, tensors)
        wrong = {"no place in the base": left_over, "missing": missing}
    if not any(wrong.values()) and (along or tensors.keys() != wanted.keys()):
        _write(place, folder, put if tensors.keys() != wanted.keys() else tensors, settings, before)
    return {
        "places": {name: list(one.shape) for name, one in wanted.items()},
        "wrong": wrong,
        "along": along,
    }


def _state(put: PeftModel) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    found: dict[str, Tensor] = get_peft_model_state_dict(put, save_embedding_layers=False)
    return found


def _loaded(put: PeftModel, tensors: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Load tensors as PEFT does; return the names that have no place, and those of no tensor."""
    import torch
    from peft import set_peft_model_state_dict

    dtypes = {one.dtype for one in tensors.values()}
    for name, one in list(put.named_parameters()):
        if one.requires_grad:  # what the adapter adds: nothing but a value that was loaded is one
            owner, _, leaf = name.rpartition(".")
            kind = next(iter(dtypes)) if len(dtypes) == 1 else torch.float32
            empty = torch.full(one.shape, torch.nan, dtype=kind, device="cpu")
            setattr(put.get_submodule(owner), leaf, torch.nn.Parameter(empty))
    with warnings.catch_warnings(action="ignore"):
        result = set_peft_model_state_dict(put, tensors, _NAME)
    left_over = sorted(name.replace(f".{_NAME}", "") for name in result.unexpected_keys)
    missing = [n for n, one in _state(put).items() if one.is_meta or not one.isfinite().all()]
    return left_over, sorted(missing)


def _write(
    place: Path,
    folder: Path,
    what: PeftModel | dict[str, Tensor],
    settings: PeftConfig,
    before: dict[str, Any],
) -> None:
    """Write an adapter as PEFT saves it today, its configuration changed where PEFT changed it."""
    from safetensors.torch import save_file

    tensors = what if isinstance(what, dict) else _state(what)
    whole = {name: one.detach().contiguous() for name, one in tensors.items()}
    save_file(whole, place / ADAPTER_WEIGHTS, {"format": "pt"})
    config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    if not isinstance(what, dict):
        after = settings.to_dict()
        config |= {key: after[key] for key in after if after[key] != before.get(key)}
    plain = {key: sorted(one) if isinstance(one, set) else one for key, one in config.items()}
    (place / ADAPTER_CONFIG).write_text(json.dumps(plain, default=str), "utf-8")


if __name__ == "__main__":
    main()
