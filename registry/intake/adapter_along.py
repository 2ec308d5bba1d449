"""The check of what an adapter from outside has saved along of its base."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from registry.errors import ModelError
from registry.store.filenames import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch


def check_along(
    folder: Path, along: Mapping[str, Sequence[str]], files: Sequence[Path], base: str
) -> None:
    """Check that layers of the base that lie in an adapter's file are the base's own.

    PEFT saves embeddings along where LoRA is on them, and writes them over the base's when it
    reads the adapter. Those that are the base's say nothing; others would change it silently.

    Args:
        folder: of the adapter.
        along: its tensors that are the base's -> the names that the base may have them by.
        files: the base's weights.
        base: its name in the spec.

    Raises:
        UserError: one is not the base's own.
    """
    from safetensors import safe_open

    with ExitStack() as opened:
        own = [opened.enter_context(safe_open(path, "pt")) for path in files]
        theirs = opened.enter_context(safe_open(folder / ADAPTER_WEIGHTS, "pt"))
        for name, known_as in along.items():
            found = next((f.get_tensor(k) for k in known_as for f in own if k in f.keys()), None)  # noqa: SIM118 - no mapping
            if found is None or not _equal(found, theirs.get_tensor(name)):
                raise ModelError(
                    f"it holds {name}, which is not what base {base} has there",
                    str(folder / ADAPTER_WEIGHTS),
                    expected="LoRA on the base as it is: this layer was trained, resized, or is "
                    "another base's",
                    fix="give it with `--base` to the base that it was trained on, or save it "
                    "without that layer",
                )


def _equal(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether two are the same numbers, in the narrower of their dtypes."""
    if ours.shape != theirs.shape:
        return False
    narrow = min(ours.dtype, theirs.dtype, key=lambda one: one.itemsize)
    return bool((ours.to(narrow) == theirs.to(narrow)).all())
