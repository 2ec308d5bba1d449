"""RDS+ embeddings: a vector for each text from the base's last hidden states.

The last hidden states of a text, averaged with weights that grow with the position (a later token
has read more of the text), padding masked out, then L2-normalised. The same pass gives the vector
of the question alone and the loss of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import DataError
from registry.models.parts import last_hidden_states, refuse_beyond

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import torch

    from registry.models.load import LoadedModel

    Matrix = np.ndarray[Any, np.dtype[np.float32]]

TOKEN_BUDGET = 1024
"""Tokens in one batch, padding included."""

VERSION = 1
"""Raised when the same text would get another embedding."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text in two parts: what is asked, which may be empty, and the answer to it."""

    asked: str
    answer: str

    @property
    def text(self) -> str:
        """All of it, the answer on a line of its own."""
        return "\n".join(part for part in (self.asked, self.answer) if part)


@dataclass(frozen=True)
class Embeddings:
    """What the base makes of passages in one pass.

    Attributes:
        vectors: of the whole passages, [passages, hidden], float32, unit rows.
        asked: of what is asked alone, which the answer has no part in; of a passage that asks
            nothing the whole one's.
        losses: the mean loss of each answer's tokens; NaN where it wasn't wanted, or the answer
            has no token of its own.
        tokens: how many the base read, without padding.
    """

    vectors: Matrix
    asked: Matrix
    losses: Matrix
    tokens: int


def embed(
    loaded: LoadedModel,
    passages: Sequence[Passage],
    *,
    losses: bool = False,
    token_budget: int = TOKEN_BUDGET,
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Return what the base alone makes of `passages`.

    Args:
        loaded: the model; an adapter in use is taken off.
        passages: none may be empty or longer than the model's context.
        losses: of the answers too, for which the LM head runs on their tokens.
        token_budget: most tokens in a batch; texts of like length are batched together.
        progress: told (texts done, texts in all) after each batch.

    Raises:
        UserError: a text has no token, or more than the context holds (nothing is cut).
    """
    import numpy as np
    import torch

    loaded.use(None)
    tokens = _encoded(loaded, [one.text for one in passages])
    asked = _encoded(loaded, [one.asked for one in passages])
    _check(tokens, [one.text for one in passages], loaded.context)
    refuse_beyond(
        loaded.model,
        loaded.tokenizer,
        [max(row) for row in tokens],
        f"bases.{loaded.identity.name}",
    )
    heads = [_shared(whole, part) for whole, part in zip(tokens, asked, strict=True)]
    width = int(loaded.model.get_input_embeddings().weight.shape[1])
    vectors, questions = (np.zeros((len(passages), width), np.float32) for _ in range(2))
    lost = np.full(len(passages), np.nan, np.float32)
    done = 0
    with torch.inference_mode():
        for batch in _batches([len(row) for row in tokens], token_budget):
            rows, begins = [tokens[i] for i in batch], [heads[i] for i in batch]
            hidden = _hidden(loaded, rows)
            vectors[batch] = _mean(hidden, [len(row) for row in rows])
            ends = [begin or len(row) for begin, row in zip(begins, rows, strict=True)]
            questions[batch] = _mean(hidden, ends)
            if losses:
                lost[batch] = _losses(loaded.model, hidden, rows, begins)
            done += len(batch)
            if progress is not None:
                progress(done, len(passages))
    return Embeddings(vectors, questions, lost, sum(map(len, tokens)))


def _encoded(loaded: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = (
        loaded.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    )
    return found


def _shared(whole: Sequence[int], part: Sequence[int]) -> int:
    """Return how many tokens at the start of `whole` are those of `part`."""
    pairs = enumerate(zip(whole, part, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(whole), len(part)))


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


def _hidden(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the last hidden states of rows, padded behind: [rows, longest, hidden]."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return last_hidden_states(loaded.model, ids.to(loaded.device), mask.to(loaded.device))


def _mean(hidden: torch.Tensor, ends: Sequence[int]) -> Matrix:
    """Return the weighted means of each row's first tokens, as many as `ends` says."""
    import numpy as np
    import torch

    position = torch.arange(1, hidden.shape[1] + 1, dtype=torch.float32)
    weight = (position * (position <= torch.tensor(ends)[:, None])).to(hidden.device)
    weight = weight / weight.sum(dim=1, keepdim=True)
    mean = torch.einsum("rl,rlh->rh", weight, hidden.float())
    unit = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
    return np.asarray(unit, dtype=np.float32)


def _losses(
    model: Any, hidden: torch.Tensor, rows: Sequence[Sequence[int]], begins: Sequence[int]
) -> list[float]:
    """Return the mean loss of each row's tokens from `begins` on, the first one of all apart.

    By the LM head alone: what a class does to its logits besides (a scale, a cap) is left out.
    """
    import torch

    head, found = model.get_output_embeddings(), list[float]()
    if head is None or head.weight.shape[-1] != hidden.shape[-1]:
        return [float("nan")] * len(rows)
    for place, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        first = max(1, begin)
        if first >= len(row):
            found.append(float("nan"))
            continue
        # A row at a time: with a large vocabulary, the logits of a batch would fill memory.
        logits = head(hidden[place, first - 1 : len(row) - 1]).float()
        wanted = torch.tensor(row[first:], device=logits.device)
        found.append(float(torch.nn.functional.cross_entropy(logits, wanted)))
    return found
