"""How far a download or an upload has come, as the Hub's client lets it be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_T = TypeVar("_T")
_LARGE = 16 << 20  # bytes; of a file of more, who waits wants to know
_WRITTEN = "huggingface_hub.snapshot_download"  # the client's name of its bar over bytes


def bar_class(told: Callable[[int, int], None]) -> Any:
    """Return a class of bars for the Hub's client that draws nothing and tells of bytes.

    Args:
        told: how many bytes are there, of how many in the files that were begun.
    """
    from huggingface_hub.utils.tqdm import tqdm

    class Told(tqdm):
        def __init__(self, *args: Any, **given: Any) -> None:
            self._counts = given.get("name") == _WRITTEN
            super().__init__(*args, **{**given, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts:
                self.n += n or 0
                told(int(self.n), int(self.total or 0))
            return None

    return Told


def together(things: Sequence[_T], sizes: Sequence[int]) -> Iterator[tuple[list[_T], int]]:
    """Yield things that are sent at once, and their bytes: small ones first, large ones alone."""
    pairs = list(zip(things, sizes, strict=True))
    small = [pair for pair in pairs if pair[1] <= _LARGE]
    if small:
        yield [thing for thing, _ in small], sum(size for _, size in small)
    for thing, size in pairs:
        if size > _LARGE:
            yield [thing], size
