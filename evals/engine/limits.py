"""The limits that the engine promises its callers, light enough to import without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Part of the key of every kept score: raised whenever the engine's figures may change.
ENGINE_VERSION = "3"
# How CUDA's and the CPU's allocators put it where they raise a plain RuntimeError.
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory")


@dataclass(frozen=True, slots=True)
class Overlong:
    """A request that doesn't fit the model: its index among the requests, its tokens."""

    index: int
    tokens: int


class OverlongError(DataError):
    """Requests longer than the model's context: nothing was scored, nothing was cut.

    Attributes:
        requests: all of them, by index, so that the caller may reject them and go on.
        context: what the model takes, in tokens.
    """

    def __init__(self, requests: Sequence[Overlong], context: int) -> None:
        """Name the first and count the rest."""
        self.requests = tuple(requests)
        self.context = context
        first = self.requests[0]
        super().__init__(
            f"{len(self.requests)} requests are longer than the model's context, the first is "
            f"request {first.index} with {first.tokens} tokens",
            expected=f"at most {context} tokens, the answer included",
        )


class NotFiniteError(ModelError):
    """The model's own arithmetic broke: a logit that decides is no finite number.

    Attributes:
        request: its index among the requests.
        layer: the first module whose output isn't finite, with its type.
    """

    def __init__(self, request: int, layer: str, where: str | None = None) -> None:
        """Name the request, or the row that it is of."""
        self.request = request
        self.layer = layer
        asked = "this item" if where else f"request {request}"
        super().__init__(
            f"the model gives no finite number for {asked}: the first to fail is {layer}",
            where,
            fix="check the weights and the adapter, or use dtype bf16 or fp32",
        )


def refuse_overlong(lengths: Sequence[int], context: int) -> None:
    """Check that every request fits.

    Args:
        lengths: tokens of each, the answer included.
        context: what the model takes, in tokens.

    Raises:
        OverlongError: names all that don't.
    """
    found = [
        Overlong(index, int(tokens)) for index, tokens in enumerate(lengths) if tokens > context
    ]
    if found:
        raise OverlongError(found, context)


def out_of_memory(error: Exception) -> bool:
    """Whether a batch failed for want of memory, so that a smaller one may do."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS)
