"""A table of a report as text, and what stands in its cells. Pure, and no markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.verdicts.forgetting import GuardFinding

_MOST = 1_800  # characters of a prompt, an answer or a row


@dataclass(frozen=True)
class Table:
    """A table of texts; the first cell of a row names it.

    Attributes:
        title: what it is of.
        columns: their heads.
        rows: a cell for each column.
        folded: opened by who wants it.
        cards: its texts are long: where there is room for shape, each row stands by itself.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    cards: bool = False


def filled(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """Return a table without the columns that say nothing."""
    shown = [at for at, _ in enumerate(columns) if at == 0 or any(row[at] for row in rows)]
    cells = tuple(tuple(row[at] for at in shown) for row in rows)
    return Table(title, tuple(columns[at] for at in shown), cells)


PAIRED = ("items", "before", "after", "lost", "gained", "difference")
"""The heads of `paired`."""


def paired(one: GuardFinding) -> tuple[str, ...]:
    """Return what the same items came to before and after."""
    return (
        f"{one.n:,}",
        f"{one.before:.3f}",
        f"{one.after:.3f}",
        f"{one.lost:,}",
        f"{one.gained:,}",
        span(one.difference.mean, one.difference.low, one.difference.high, signed=True),
    )


def shortened(text: str) -> str:
    """Return a text without its middle where it is too long for a page: a question ends it."""
    if len(text) <= _MOST:
        return text
    head, tail = text[: _MOST // 3], text[-2 * _MOST // 3 :]
    left = len(text) - len(head) - len(tail)
    return f"{head}\n[… {left:,} characters are left out …]\n{tail}"


def span(mean: float, low: float, high: float, *, signed: bool = False) -> str:
    """Return a mean and its interval: `0.941 (0.925 to 0.955)`."""
    sign = "+" if signed else ""
    return f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
