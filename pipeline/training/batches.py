"""The plan's batches on their way into the model, whole or, when memory is short, in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from pipeline.training.loss import PackedRows, pack_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.training.encode import EncodedRow
    from pipeline.training.packing import Batch

# How torch's allocators, and the system's, say that there is no more.
_SAID = ("not enough memory", "can't allocate memory", "out of memory", "bad_alloc")


class PlannedBatches(Dataset[dict[str, Any]]):
    """The plan's batches, as positions of rows."""

    def __init__(self, rows: Sequence[EncodedRow], plan: Sequence[Batch]) -> None:
        self._rows = rows
        self._plan = plan

    def __len__(self) -> int:
        """How many batches the plan has."""
        return len(self._plan)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The positions of one batch's rows, and their labels, which the Trainer counts."""
        batch = self._plan[index]
        labels = [torch.from_numpy(self._rows[row].labels) for row in batch.rows]
        return {"labels": torch.cat(labels), "rows": batch.rows, "epoch": batch.epoch}


def packed_pieces(
    rows: Sequence[EncodedRow], pieces: int, *, share: bool, device: torch.device
) -> Iterator[PackedRows]:
    """Pack a batch's rows in so many pieces of about equal tokens, fewer where it has fewer rows.

    Args:
        rows: of the batch, in its order.
        pieces: 1 or more.
        share: let rows of one prompt share it.
        device: where the tensors go.
    """
    for cut in cuts([row.tokens for row in rows], pieces):
        packed = pack_rows(rows[cut], share=share)
        yield PackedRows.from_inputs({
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in packed.as_inputs().items()
        })  # fmt: skip


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
