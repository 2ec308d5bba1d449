"""Arithmetic of LoRA training, counted from the model's shape, and what this machine reaches in it.

    python benchmarks/_train_flops.py SETTINGS      as train.py starts it: the rate, in turns

What is counted, for layers of in x out, rank r, T tokens, L trained tokens, P pairs of a token and
one that it may see (a row of n tokens has n (n + 1) / 2):

    frozen linear layers   forward 2 T in out, backward (for activations alone) 2 T in out
    LoRA of each           forward 2 T r (in + out), backward for A and B 2 T r (in + out), for
                           activations 2 T r (in + out)
    attention              forward 4 P heads size, backward 8 P heads size
    LM head                forward 2 L hidden vocabulary, backward the same

Nothing below q, k and v of the first layer is trained, so there backward has no frozen part, and
of LoRA's activations only 2 T r out. Norms, softmax, activation functions, the loss and the
optimizer count nothing, and nor does what a trainer computes beyond this (padding, recomputation,
logits of tokens without a label).

The machine's rate is that of the frozen linear layers' own products and the head's, forward and
backward, on as many rows as a batch has tokens.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent / "train_peers"))

from _turns import start

if TYPE_CHECKING:
    from collections.abc import Sequence

MILLION = 1e6


def layer_shapes(config: Any) -> dict[str, tuple[int, int]]:
    """Return (in, out) of one layer's linear layers, by name."""
    hidden, between = config.hidden_size, config.intermediate_size
    size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    return {
        "q": (hidden, queries),
        "k": (hidden, keys),
        "v": (hidden, keys),
        "o": (queries, hidden),
        "gate": (hidden, between),
        "up": (hidden, between),
        "down": (between, hidden),
    }


def training_flops(
    config: Any, *, tokens: float, pairs: float, trained: float, rank: int = 16
) -> float:
    """Return the floating-point operations of training on so many tokens; see the module."""
    shapes = layer_shapes(config)
    layers = config.num_hidden_layers
    body = sum(4 * i * o + 6 * rank * (i + o) for i, o in shapes.values()) * layers
    saved = sum(2 * i * o + 2 * rank * i for i, o in (shapes[name] for name in "qkv"))
    heads = shapes["q"][1]
    head = 4 * config.hidden_size * config.vocab_size
    return tokens * (body - saved) + 12 * pairs * heads * layers + trained * head


def pairs_per_token(lengths: Sequence[int]) -> float:
    """Return how many tokens a token of these rows may see, on average."""
    return sum(n * (n + 1) / 2 for n in lengths) / sum(lengths)


def products(config: Any) -> dict[tuple[int, int], int]:
    """Return how often each (in, out) stands in the model, the head once."""
    found = Counter(layer_shapes(config).values())
    layers = {shape: times * config.num_hidden_layers for shape, times in found.items()}
    return {**layers, (config.hidden_size, config.vocab_size): 1}


def main() -> None:
    """Multiply in turns; a turn's `tokens` are million operations, weighted as in the model."""
    turns, given = start()
    import torch
    from torch.nn.functional import linear
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(given["folder"])
    dtype = getattr(torch, given["dtype"])
    rows = given["trainer"]["tokens"]
    made = [
        [torch.randn(*size, dtype=dtype) for size in ((rows, i), (rows, o), (o, i))] + [times]
        for (i, o), times in products(config).items()
    ]
    turns.loaded()
    with torch.no_grad():
        while True:
            done = 0.0
            for x, grad, weight, times in made:
                for _ in range(times):
                    linear(x, weight)
                    grad @ weight
                    done += 4.0 * rows * weight.numel()
            turns.batch_done(round(done / MILLION), 0)
            turns.between()


if __name__ == "__main__":
    main()
