"""Rounded batch sizes: whole steps, where each new size costs.

oneDNN, which multiplies in bf16 and fp16 on a CPU, compiles a kernel for every new shape and keeps
it. Packed batches have a new number of tokens each time: 30 steps of a model of 58 M parameters
took 2 GB of such kernels. A few tokens of padding, of which nothing is asked, make the shapes few.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from pipeline.training.examples.layout import AttentionGroup, TreeLayout

TOKENS = 128
"""A batch's tokens are a multiple of it. With 64 there is more memory; 256 is slower (tried)."""
_TRAINED = 64  # of trained tokens, whose logits are large


def wants_whole_steps(model: torch.nn.Module) -> bool:
    """Whether this model multiplies by kernels that are made for one shape each."""
    return any(_is_half_on_cpu(weight) for weight in model.parameters())


def round_tokens(
    ids: torch.Tensor, positions: torch.Tensor, layout: TreeLayout
) -> tuple[torch.Tensor, torch.Tensor, TreeLayout]:
    """Add a row of padding behind a batch, up to whole steps.

    Args:
        ids: int64 [1, T].
        positions: int64 [1, T].
        layout: of the T tokens.
    """
    tokens = ids.shape[1]
    more = -tokens % TOKENS
    if not more:
        return ids, positions, layout
    ids, positions = pad(ids, (0, more)), pad(positions, (0, more))
    groups = (*layout.groups, AttentionGroup(rows=1, width=more))
    if layout.spread is None or layout.real is None:
        return ids, positions, TreeLayout(groups, None, None)
    own = torch.arange(more, device=ids.device)
    spread = torch.cat([layout.spread, own + tokens])
    real = torch.cat([layout.real, own + len(layout.spread)])
    return ids, positions, TreeLayout(groups, spread, real)


def round_trained(hidden: torch.Tensor, most: int) -> torch.Tensor:
    """Add zeros below the states of trained tokens [n, d], up to whole steps and `most`."""
    if not _is_half_on_cpu(hidden):
        return hidden
    more = min(-len(hidden) % _TRAINED, most - len(hidden))
    return pad(hidden, (0, 0, 0, more)) if more else hidden


def _is_half_on_cpu(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)
