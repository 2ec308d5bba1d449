"""Attention over packed rows: each row by itself, whatever lies beside it in the batch.

transformers' own masks for packed rows depend on how the model is called and contaminate silently
when called otherwise. Here the layout of the batch is handed down explicitly, the attention
function refuses to run without it, and `why_not_packed` proves on the model at hand that no row
sees another before a batch is packed at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from pipeline.training.examples.layout import (
    AttentionGroup,
    TreeGroup,
    TreeLayout,
    make_layout,
    seen_mask,
)
from registry.errors import GapmendError

__all__ = ["NAME", "NotPackableError", "make_layout", "packed_attention"]

NAME = "gapmend_packed"


class NotPackableError(GapmendError):
    """This model's attention can't be run row by row inside a packed batch."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend each packed row to itself, causally.

    Args:
        module: the attention layer.
        query: [1, H, T, D]; `key` and `value` are [1, H or H / groups, T, D].
        key: see query.
        value: see query.
        attention_mask: must be None; the layout says all.
        dropout: of the attention weights.
        scaling: of the scores.
        kwargs: `packed_layout` and what the model passes on.

    Returns:
        [1, T, H, D] in the query's dtype, and no weights.

    Raises:
        NotPackableError: without a layout, or with a term that this function does not know.
    """
    layout: TreeLayout | None = kwargs.get("packed_layout")
    if layout is None or attention_mask is not None or not getattr(module, "is_causal", True):
        message = f"{type(module).__name__} was called without the layout of its packed rows"
        raise NotPackableError(message)
    for term in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(term) is not None:
            message = f"{type(module).__name__} uses {term} in its attention"
            raise NotPackableError(message)
    window = kwargs.get("sliding_window")
    parts = [_token_major(x, layout) for x in (query, key, value)]
    sizes = [size for group in layout.groups for size in group.sizes]
    pieces = zip(*(part.split(sizes) for part in parts), strict=True)
    attended: list[torch.Tensor] = []
    for group in layout.groups:
        if isinstance(group, TreeGroup):
            prefixes, branches = next(pieces), next(pieces)
            rows = AttentionGroup(group.trees, group.prefix)
            attended.append(_attend_group(prefixes, rows, dropout, scaling, window))
            attended.append(_attend_branches(branches, prefixes, group, dropout, scaling, window))
        else:
            attended.append(_attend_group(next(pieces), group, dropout, scaling, window))
    out = attended[0] if len(attended) == 1 else torch.cat(attended)
    if layout.real is not None:
        out = _collect(out, layout.real)
    return out.to(query.dtype).unsqueeze(0), None


class _Spread(torch.autograd.Function):
    """[T, ...] to [P, ...]: tokens to their places, padding filled.

    Padding has no gradient (no real position sees it, and what it sees is dropped), so the
    gradient is a gather too, where autograd's own would be a slow scatter-add.
    """

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, spread: torch.Tensor, real: torch.Tensor) -> Any:
        ctx.save_for_backward(real)
        return flat.index_select(0, spread)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (real,) = ctx.saved_tensors
        return grads[0].index_select(0, real), None, None


class _Collect(torch.autograd.Function):
    """[P, ...] back to [T, ...]: what padding saw is dropped."""

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, real: torch.Tensor) -> Any:
        ctx.save_for_backward(real)
        ctx.places = padded.shape[0]
        return padded.index_select(0, real)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (real,) = ctx.saved_tensors
        spread = grads[0].new_zeros(ctx.places, *grads[0].shape[1:])
        return spread.index_copy_(0, real, grads[0]), None


# `apply` has no types.
_spread: Any = _Spread.apply
_collect: Any = _Collect.apply


def _token_major(x: torch.Tensor, layout: TreeLayout) -> torch.Tensor:
    """[1, H, T, D] to [P, H, D]: on a CPU in fp32, on a GPU in the dtype that its kernels want."""
    flat = x.squeeze(0).transpose(0, 1)
    if flat.device.type == "cpu":
        flat = flat.float()
    if layout.spread is None:
        return flat
    return _spread(flat, layout.spread, layout.real)


def _attend_group(
    parts: tuple[torch.Tensor, ...],
    group: AttentionGroup,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attend `group.rows` rows of [rows * width, H, D] each; returns [rows * width, H, D]."""
    query, key, value = (
        part.reshape(group.rows, group.width, *part.shape[1:]).transpose(1, 2) for part in parts
    )
    mask = None
    if window is not None and group.width > window:
        ages = torch.arange(group.width, device=query.device)
        ages = ages[:, None] - ages[None, :]
        mask = (ages >= 0) & (ages < window)
    out = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1)


def _attend_branches(
    branches: tuple[torch.Tensor, ...],
    prefixes: tuple[torch.Tensor, ...],
    group: TreeGroup,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Attend a group's branches of [trees * branches * width, H, D] each; returns the same."""
    query, *own = (_bundles(part, group) for part in branches)
    key, value = (
        torch.cat([_for_bundles(prefix, group), part], dim=1)
        for prefix, part in zip(prefixes[1:], own, strict=True)
    )
    out = scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=group.mask if window is None else seen_mask(group.ages, window),
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=key.shape[2] != query.shape[2],
    )
    return out.transpose(1, 2).flatten(0, 1)


def _bundles(part: torch.Tensor, group: TreeGroup) -> torch.Tensor:
    """[trees * branches * width, H, D] to [bundles, bundle * width, H, D]."""
    return part.reshape(-1, group.bundle * group.width, *part.shape[1:])


def _for_bundles(prefix: torch.Tensor, group: TreeGroup) -> torch.Tensor:
    """[trees * prefix, H, D] to [bundles, prefix, H, D]: a copy for each bundle."""
    by_tree = prefix.reshape(group.trees, 1, group.prefix, *prefix.shape[1:])
    return by_tree.expand(-1, group.branches // group.bundle, -1, -1, -1).flatten(0, 1)
