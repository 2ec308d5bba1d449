"""The licence that a folder says of itself: as its card does, else as a LICENSE file begins.

Nothing is fetched, and nothing is refused: it is for people to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import UserError
from registry.intake.copy import as_name, license_beside

if TYPE_CHECKING:
    from pathlib import Path

_FILES = tuple(
    f"{name}{ending}"
    for name in ("LICENSE", "LICENCE", "COPYING")
    for ending in ("", ".txt", ".md")
)
_HEAD = 4096  # bytes of a file that its first line is looked for in


@dataclass(frozen=True, slots=True)
class SaidLicense:
    """A licence, and what says it: the spec, a card, or a LICENSE file by its first line."""

    name: str
    by: str


def license_in(folder: Path) -> SaidLicense | None:
    """Return the licence that a folder's card or LICENSE file says; None where neither does."""
    try:
        carded = license_beside(folder, None, folder.name)
    except UserError:
        carded = None  # a card that isn't read says nothing
    if carded is not None:
        return SaidLicense(carded, "its card")
    for name in _FILES:
        if (first := _first_line(folder / name)) is not None:
            return SaidLicense(first, name)
    return None


def _first_line(file: Path) -> str | None:
    if not file.is_file():
        return None
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    lines = (line.strip("#* \t") for line in head.splitlines())
    return as_name(next(filter(None, lines), None))
