"""The rows of new tokens: trained with LoRA's matrices, kept in the adapter with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from registry.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from pipeline.spec.train import TrainSpec
    from registry.models.load import LoadedModel

ROWS = "token_adapter.trainable_tokens_delta"
"""What PEFT calls them; they are the rows themselves, and no differences from others."""


def new_rows(loaded: LoadedModel) -> dict[str, list[int]]:
    """Return the modules that have rows for new tokens, and which: embeddings and LM head.

    A head that is tied to the embeddings has theirs.
    """
    ids = loaded.new_rows
    if not ids:
        return {}
    embeddings: Any = loaded.model.get_input_embeddings()
    head: Any = loaded.model.get_output_embeddings()
    own = [embeddings]
    if head is not None and head.weight is not embeddings.weight:
        own.append(head)
    names = {module: name for name, module in loaded.model.named_modules()}
    return {names[module]: ids for module in own}


def refuse_untrained(loaded: LoadedModel, spec: TrainSpec) -> None:
    """Refuse a method that would leave the rows of new tokens as they began.

    Raises:
        UserError: it is so.
    """
    if loaded.new_tokens and spec.method == "freeze":
        raise ModelError(
            "freeze trains the last layers alone, and new tokens have rows before the first",
            where="train.method",
            expected="lora or a kind of it, or full",
            fix=f"take one of them, or leave out bases.{spec.base}.new_tokens",
        )


def keep_masters(model: nn.Module) -> None:
    """Keep the trained rows in fp32, as LoRA's matrices are; PEFT gives them the base's dtype."""
    for name, parameter in model.named_parameters():
        if ROWS in name:
            parameter.data = parameter.data.to(torch.float32)
