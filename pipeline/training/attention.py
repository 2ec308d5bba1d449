"""Attention over packed rows: each row by itself, whatever lies beside it in the batch.

transformers' own masks for packed rows depend on how the model is called and contaminate silently
when called otherwise. Here the layout of the batch is handed down explicitly, the attention
function refuses to run without it, and `packs_cleanly` proves on the model at hand that no row
sees another before a batch is packed at all.

Rows of similar length are attended together, padded on the right. Under a causal mask no real
position sees such padding, and what padding sees is dropped, so values and gradients are those of
the row alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from registry.errors import GapmendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "gapmend_packed"

# Up to this width the cost of a call is larger than that of the padding.
_ALWAYS_TOGETHER = 64
_SHARE_OF_WIDTH = 0.75


class NotPackableError(GapmendError):
    """This model's attention can't be run row by row inside a packed batch."""


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring rows that are attended in one call, each padded to `width` tokens."""

    rows: int
    width: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How T tokens of packed rows become P tokens of padded groups (P >= T).

    Attributes:
        groups: in the order of the rows in the batch.
        spread: [P] index of the token that each padded place takes; None when nothing is padded.
        real: [T] the padded place of each token; None when nothing is padded.
    """

    groups: tuple[Group, ...]
    spread: torch.Tensor | None
    real: torch.Tensor | None


def make_layout(lengths: Sequence[int], device: torch.device | str = "cpu") -> Layout:
    """Group rows of these lengths (longest first) for attention."""
    groups: list[Group] = []
    spread: list[int] = []
    real: list[int] = []
    begin = 0
    for first, count in _runs(lengths):
        width = lengths[first]
        groups.append(Group(rows=count, width=width))
        for length in lengths[first : first + count]:
            real.extend(range(len(spread), len(spread) + length))
            spread.extend(range(begin, begin + length))
            # Padding repeats the row's own last token: a finite value that is this row's alone.
            spread.extend([begin + length - 1] * (width - length))
            begin += length
    if len(spread) == len(real):
        return Layout(groups=tuple(groups), spread=None, real=None)
    return Layout(
        groups=tuple(groups),
        spread=torch.tensor(spread, device=device),
        real=torch.tensor(real, device=device),
    )


def _runs(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first row, rows) of each group."""
    first = 0
    for row, length in enumerate(lengths):
        width = lengths[first]
        if length < width * _SHARE_OF_WIDTH and width > _ALWAYS_TOGETHER:
            yield first, row - first
            first = row
    if lengths:
        yield first, len(lengths) - first


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
    """Attend each packed row to itself, causally, in fp32.

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
    layout: Layout | None = kwargs.get("packed_layout")
    if layout is None or attention_mask is not None or not getattr(module, "is_causal", True):
        message = f"{type(module).__name__} was called without the layout of its packed rows"
        raise NotPackableError(message)
    for term in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(term) is not None:
            message = f"{type(module).__name__} uses {term} in its attention"
            raise NotPackableError(message)
    window = kwargs.get("sliding_window")
    parts = [_token_major(x, layout) for x in (query, key, value)]
    attended: list[torch.Tensor] = []
    begin = 0
    for group in layout.groups:
        end = begin + group.rows * group.width
        attended.append(
            _attend_group([part[begin:end] for part in parts], group, dropout, scaling, window)
        )
        begin = end
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


def _token_major(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """[1, H, T, D] to fp32 [P, H, D]."""
    flat = x.squeeze(0).transpose(0, 1).float()
    if layout.spread is None:
        return flat
    return _spread(flat, layout.spread, layout.real)


def _attend_group(
    parts: list[torch.Tensor],
    group: Group,
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
