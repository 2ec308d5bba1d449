"""RDS+ embeddings: a vector for each text from the base's last hidden states.

The last hidden states of a text, averaged with weights that grow with the position (a later token
has read more of the text), padding masked out, then L2-normalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import DataError
from registry.models.parts import last_hidden_states, refuse_beyond

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from registry.models.load import LoadedModel

    Matrix = np.ndarray[Any, np.dtype[np.float32]]

TOKEN_BUDGET = 1024
"""Tokens in one batch, padding included."""

VERSION = 1
"""Raised when the same text would get another embedding."""


def embed(
    loaded: LoadedModel,
    texts: Sequence[str],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Callable[[int, int], None] | None = None,
) -> Matrix:
    """Return the embeddings of `texts` by the base alone: [len(texts), hidden], float32, unit rows.

    Args:
        loaded: the model; an adapter in use is taken off.
        texts: none may be empty or longer than the model's context.
        token_budget: most tokens in a batch; texts of like length are batched together.
        progress: told (texts done, texts in all) after each batch.

    Raises:
        UserError: a text has no token, or more than the context holds (nothing is cut).
    """
    import numpy as np
    import torch

    loaded.use(None)
    tokens: list[list[int]] = (
        loaded.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    )
    _check(tokens, texts, loaded.context)
    refuse_beyond(
        loaded.model,
        loaded.tokenizer,
        [max(row) for row in tokens],
        f"bases.{loaded.identity.name}",
    )
    width = int(loaded.model.get_input_embeddings().weight.shape[1])
    out = np.zeros((len(texts), width), np.float32)
    done = 0
    with torch.inference_mode():
        for batch in _batches([len(row) for row in tokens], token_budget):
            out[batch] = _embed_batch(loaded, [tokens[position] for position in batch])
            done += len(batch)
            if progress is not None:
                progress(done, len(texts))
    return out


def _check(tokens: Sequence[Sequence[int]], texts: Sequence[str], context: int) -> None:
    for row, text in zip(tokens, texts, strict=True):
        if not row:
            raise DataError("a text without a token can't be embedded")
        if len(row) > context:
            raise DataError(
                f"a text of {len(row)} tokens can't be embedded: {text[:60]!r}",
                expected=f"at most {context} tokens, the base's context",
            )


def _batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Yield positions in batches, longest first, each at most `token_budget` padded tokens."""
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = max(longest, lengths[position])
        if batch and longest * (len(batch) + 1) > token_budget:
            yield batch
            batch, longest = [], lengths[position]
        batch.append(position)
    if batch:
        yield batch


def _embed_batch(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> Matrix:
    import numpy as np
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    given = ids.to(loaded.device), mask.to(loaded.device)
    hidden = last_hidden_states(loaded.model, *given).float()  # [rows, longest, hidden]
    position = torch.arange(1, longest + 1, dtype=torch.float32)
    weight = (position * mask).to(hidden.device)
    weight = weight / weight.sum(dim=1, keepdim=True)
    mean = torch.einsum("rl,rlh->rh", weight, hidden)
    unit = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
    return np.asarray(unit, dtype=np.float32)
