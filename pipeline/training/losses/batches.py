"""The plan's batches on their way into the model, whole or, when memory is short, in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from pipeline.training.losses.loss import PackedRows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.training.examples.packing import PackedBatch

# How torch's allocators, and the system's, say that there is no more.
_SAID = ("not enough memory", "can't allocate memory", "out of memory", "bad_alloc")


class PlannedBatches(Dataset[dict[str, Any]]):
    """The plan's batches, as positions of what an objective is made of."""

    def __init__(
        self, plan: Sequence[PackedBatch], weights: Callable[[Sequence[int]], torch.Tensor]
    ) -> None:
        self._plan = plan
        self._weights = weights

    def __len__(self) -> int:
        """How many batches the plan has."""
        return len(self._plan)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The positions of one batch; the Trainer counts in `labels`, by its own name for it."""
        batch = self._plan[index]
        return {"labels": self._weights(batch.rows), "rows": batch.rows, "epoch": batch.epoch}


def on_device(packed: PackedRows, device: torch.device) -> PackedRows:
    """Return the same rows with their tensors on a device."""
    return PackedRows.from_inputs(moved(packed.as_inputs(), device))


def moved(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return inputs by name with their tensors on a device."""
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


def cuts(lengths: Sequence[int], pieces: int) -> list[slice]:
    """Cut rows of these lengths into at most so many runs of about equal tokens, none empty."""
    share = sum(lengths) / pieces
    found: list[slice] = []
    begin, tokens = 0, 0
    for row, length in enumerate(lengths):
        left = pieces - len(found) - 1
        if row > begin and left and tokens + length / 2 > share:
            found.append(slice(begin, row))
            begin, tokens = row, 0
        tokens += length
    return [*found, slice(begin, len(lengths))]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up, on a GPU or here."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _SAID)
