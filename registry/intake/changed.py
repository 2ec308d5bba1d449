"""A folder of changed tensors from outside, checked before anything reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.models.changed import read_changed, read_changed_config
from registry.store.filenames import CHANGED_CONFIG, CHANGED_WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


def check_changed(folder: Path, model: PreTrainedModel, where: str) -> str:
    """Check tensors from outside against the base they are for; returns the method they name.

    Raises:
        UserError: no place in the base, another shape or dtype, or values that are not finite.
    """
    from registry.models.safetensors_header import read_header

    read_header(folder / CHANGED_WEIGHTS)
    own = dict(model.named_parameters())
    for name, tensor in read_changed(folder).items():
        fits = name in own and own[name].shape == tensor.shape and own[name].dtype == tensor.dtype
        if not fits:
            raise ModelError(f"{name:.100} has no place in the base", where)
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{name:.100} has values that are not finite", where)
    try:
        method = read_changed_config(folder)["method"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(
            "it says no method", f"{where}: {CHANGED_CONFIG}", "freeze or full"
        ) from None
    if method not in ("freeze", "full"):
        raise ModelError(
            f"its method is {method!r:.40}", f"{where}: {CHANGED_CONFIG}", "freeze or full"
        )
    return str(method)
