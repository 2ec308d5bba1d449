"""Tokens that a base's spec adds to its vocabulary, and the rows they get to begin with.

They belong to the base: its gap, its guards and every adapter are measured with them. What is
trained of them are their rows alone, and those go into the adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], where: str) -> None:
    """Add tokens that are found in any text, whatever is around them, and shown in answers.

    Raises:
        UserError: the tokenizer has one of them already.
    """
    from tokenizers import AddedToken

    vocabulary = tokenizer.get_vocab()
    known = next((token for token in tokens if token in vocabulary), None)
    if known is not None:
        raise ModelError(
            f"'{known}' is in the vocabulary already", f"{where}.new_tokens", fix="leave it out"
        )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])


def ids_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    """Return the ids of tokens that were added, in their order."""
    vocabulary = tokenizer.get_added_vocab()
    return [vocabulary[token] for token in tokens]


def initial_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]
) -> None:
    """Give added tokens their rows in the embeddings and the LM head.

    Rows that the checkpoint has to spare are used; where there are too few, both are made larger.
    A row begins as the mean of the rows of the pieces that its text was read as before, so that
    its logit begins below the largest of theirs. That takes no random draw: the same base comes
    of it in every process.

    Args:
        model: the base as it was loaded.
        tokenizer: with the tokens added.
        tokens: that were added.
    """
    import torch

    ids = ids_of(tokenizer, tokens)
    matrices = _matrices(model)
    if max(ids) >= min(len(matrix) for matrix in matrices):
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        matrices = _matrices(model)
    with torch.no_grad():
        for token, row in zip(tokens, ids, strict=True):
            pieces = _pieces(tokenizer, token, set(ids))
            for matrix in matrices:
                matrix[row] = matrix[pieces].float().mean(0).to(matrix.dtype)


def _matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return the embeddings, and the LM head's weight where it is another one."""
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = head is None or head.weight is embeddings.weight
    return [embeddings.weight] if tied else [embeddings.weight, head.weight]


def _pieces(tokenizer: PreTrainedTokenizerBase, token: str, added: set[int]) -> list[int]:
    """Return the tokens of the tokenizer's own that a new token's text is made of.

    Its text is cut once more in two, where the tokenizer would find the new token again.
    """
    cut = max(1, len(token) // 2)
    parts = [token[:cut], token[cut:]]
    found = [one for part in parts for one in tokenizer.encode(part, add_special_tokens=False)]
    known = [one for one in found if one not in added]
    # A text of one character, or one that is made of other new tokens, tells nothing.
    return known or list(range(min(added)))
