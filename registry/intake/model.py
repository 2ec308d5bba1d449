"""Merged models from outside, checked before they are taken in; nothing in them is trusted."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.intake.base import check_made
from registry.intake.template import read_object
from registry.models.base_config import read_config
from registry.models.safetensors_header import read_header
from registry.publish.secrets import refuse_secrets, scan_files
from registry.store.filenames import TOKENIZER

if TYPE_CHECKING:
    from pathlib import Path

_CODE = ("auto_map", "custom_generate", "custom_pipelines", "auto_mapping")
_NAMED = 3


def check_model(folder: Path, where: str) -> None:
    """Check a model's folder: no code, no path, no secret, whole and finite weights that fit.

    Raises:
        UserError: it is not so; one line that names the file.
    """
    for path in sorted(folder.glob("*.json")):
        if path.name != TOKENIZER:
            _refuse_code(path, where)
    read_config(folder, where)
    refuse_secrets(scan_files([(p.name, p) for p in sorted(folder.glob("*.json"))], ()))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError("a model without weights", where, "*.safetensors")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weights:
        read_header(path)
        shapes |= _finite_shapes(path, where)
    check_made(folder, sum(map(math.prod, shapes.values())), where)
    _check_fits(folder, shapes, where)


def _refuse_code(path: Path, where: str) -> None:
    given = read_object(path, where)
    for key in _CODE:
        if given.get(key):
            raise ModelError(
                f"{key} makes the loader run the code it names", f"{where}: {path.name}", "no code"
            )


def _finite_shapes(path: Path, where: str) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    shapes = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise ModelError(f"{name} has values that are not finite", where)
    except SafetensorError as error:
        raise ModelError(f"{path.name} can't be read: {error}", where) from None
    return shapes


def _check_fits(folder: Path, found: dict[str, tuple[int, ...]], where: str) -> None:
    """Check that the weights are those that the config makes; ties may leave names out."""
    import torch
    from transformers import AutoConfig
    from transformers.core_model_loading import revert_weight_conversion

    from registry.models.classes import causal_class

    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            config = AutoConfig.from_pretrained(folder)
            model = causal_class(config).from_config(config)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, AttributeError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"no model can be made of config.json: {said}", where) from None
    made = model.state_dict()
    ties = getattr(model, "all_tied_weights_keys", None) or {}
    # In a file the parts of a wrapper, and experts, may have other names than in the model.
    wanted = {n: tuple(t.shape) for n, t in revert_weight_conversion(model, dict(made)).items()}
    tied = revert_weight_conversion(model, {name: made[name] for name in ties if name in made})
    missing = sorted(wanted.keys() - found.keys() - tied.keys())
    wrong = sorted(n for n in found.keys() & wanted if found[n] != wanted[n])
    extra = sorted(found.keys() - wanted.keys())
    for what, names in (("missing", missing), ("of another shape", wrong), ("left over", extra)):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise ModelError(f"weights {what}: {', '.join(names[:_NAMED])}{more}", where)
