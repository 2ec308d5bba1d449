"""Sizes of a base's weights in bytes at each precision, from its config alone.

bf16 has fp16's size and a wider range, not more precision. Integer quantisation keeps one scale
per block of weights and rounds each weight to a step of it; embeddings, norms and the LM head
stay in 16 bits, as bitsandbytes leaves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.models.classes import causal_class

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_INT8_SCALE_BYTES = 4  # LLM.int8: one fp32 scale per output row
_NF4_BLOCK = 64  # bitsandbytes' default block, one fp32 absmax each
_NF4_SCALE_BYTES = 4


@dataclass(frozen=True)
class WeightSizes:
    """Parameters, and the bytes they take at each precision."""

    parameters: int
    fp32: int
    fp16: int
    bf16: int
    int8: int
    int4: int


def weight_sizes(config: PreTrainedConfig) -> WeightSizes:
    """Return the sizes of a causal model of this config; no weights are read or allocated."""
    import torch

    with torch.device("meta"):
        model = causal_class(config).from_config(config)
    head = model.get_output_embeddings()
    linear = [
        module.weight.shape
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    total = sum(p.numel() for p in model.parameters())  # tied weights are counted once
    packed = sum(rows * columns for rows, columns in linear)
    rows = sum(rows for rows, _ in linear)
    rest = 2 * (total - packed)
    return WeightSizes(
        parameters=total,
        fp32=4 * total,
        fp16=2 * total,
        bf16=2 * total,
        int8=packed + _INT8_SCALE_BYTES * rows + rest,
        int4=packed // 2 + _NF4_SCALE_BYTES * (packed // _NF4_BLOCK) + rest,
    )
