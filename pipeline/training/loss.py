"""The loss of a packed batch: summed over trained tokens, the LM head computed only there."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from pipeline.training.attention import make_layout
from pipeline.training.encode import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.training.encode import EncodedRow


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows laid end to end: tensors are int64 [1, T]; `lengths` sum to T."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    lengths: tuple[int, ...]
    uids: tuple[int, ...]


def pack_rows(rows: Sequence[EncodedRow]) -> PackedRows:
    """Lay rows end to end, the positions of each starting at 0."""
    lengths = tuple(row.tokens for row in rows)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return PackedRows(
        input_ids=_joined([row.input_ids for row in rows]),
        position_ids=positions.unsqueeze(0),
        labels=_joined([row.labels for row in rows]),
        lengths=lengths,
        uids=tuple(row.uid for row in rows),
    )


def _joined(arrays: Sequence[Any]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(array) for array in arrays]).long().unsqueeze(0)


def packed_loss(model: torch.nn.Module, rows: PackedRows) -> torch.Tensor:
    """Sum of the trained tokens' losses in one forward pass over all rows; fp32 scalar.

    Only for a model whose attention is `attention.NAME`.
    """
    layout = make_layout(rows.lengths, rows.input_ids.device)
    return _summed_loss(model, rows, packed_layout=layout)


def row_by_row_loss(model: torch.nn.Module, rows: PackedRows) -> torch.Tensor:
    """The same sum, one forward pass a row, for models that can't be packed."""
    total: torch.Tensor | None = None
    begin = 0
    for length, uid in zip(rows.lengths, rows.uids, strict=True):
        cut = slice(begin, begin + length)
        row = PackedRows(
            rows.input_ids[:, cut],
            rows.position_ids[:, cut],
            rows.labels[:, cut],
            lengths=(length,),
            uids=(uid,),
        )
        loss = _summed_loss(model, row)
        total = loss if total is None else total + loss
        begin += length
    if total is None:
        raise ValueError("a batch without rows")
    return total


def _summed_loss(model: torch.nn.Module, rows: PackedRows, **kwargs: Any) -> torch.Tensor:
    # The token before a trained one predicts it. A row's first token has no label, so no row is
    # predicted from the one before it.
    places = (rows.labels[0, 1:] != IGNORED).nonzero().squeeze(1)
    if takes_places(model):
        kwargs["logits_to_keep"] = places
    logits = model(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        attention_mask=None,
        use_cache=False,
        **kwargs,
    ).logits[0]
    if "logits_to_keep" not in kwargs:
        logits = logits[places]
    return cross_entropy(logits.float(), rows.labels[0, places + 1], reduction="sum")


def takes_places(model: Any) -> bool:
    """Whether the model computes its head only at the places asked for."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters
