"""Texts that must be gone: finding them in other texts, whole or in part, and cutting them out."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ERASED = "[erased]"
"""What stands where a text was."""

_WINDOW = 12  # characters: shorter texts are found only where they stand alone
_MOST = 4_000_000  # characters that are looked for piece by piece; beyond, every text is suspect
_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]+")
_QUOTES = "'\"`…. "


class Phrases:
    """What erased rows said and no row that is left says."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Remember the texts; empty ones are left out."""
        self.texts = frozenset(text for text in texts if text.strip())
        self._starts: dict[str, list[str]] = {}
        for text in self.texts:
            if len(text) >= _WINDOW:
                self._starts.setdefault(text[:_WINDOW], []).append(text)
        self._pieces: frozenset[str] | None = None
        if sum(map(len, self.texts)) <= _MOST:
            self._pieces = frozenset(piece for text in self.texts for piece in _windows(text))

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.texts)

    @cached_property
    def sentences(self) -> Phrases:
        """The texts that can't be a name: what a manifest calls its parts is left alone."""
        return Phrases(text for text in self.texts if not _NAME.fullmatch(text))

    def inside(self, text: str) -> bool:
        """Whether one of the texts, of 12 characters or more, stands in `text` as a whole."""
        return any(True for _ in self._found(text))

    def cut(self, text: str) -> str:
        """Return `text` with `[erased]` in the place of each of the texts in it."""
        for found in sorted(set(self._found(text)), key=len, reverse=True):
            text = text.replace(found, ERASED)
        return text

    def touches(self, text: str) -> bool:
        """Whether `text` may show a part of the texts: 12 characters of one, or a short one alone.

        It says yes rather than no: for what only explains, and can be left out.
        """
        bare = text.strip(_QUOTES)
        if self._pieces is None or bare in self.texts:
            return bool(self.texts)
        if len(bare) < _WINDOW:
            return bool(bare) and any(bare in one for one in self.texts)
        return any(piece in self._pieces for piece in _windows(text))

    def _found(self, text: str) -> Iterator[str]:
        if not self._starts:
            return
        for position in range(len(text) - _WINDOW + 1):
            for whole in self._starts.get(text[position : position + _WINDOW], ()):
                if text.startswith(whole, position):
                    yield whole


def cut_all(value: Any, phrases: Phrases) -> Any:
    """Return a JSON value with the texts cut out of every string in it, keys too."""
    if isinstance(value, str):
        return phrases.cut(value)
    if isinstance(value, list):
        return [cut_all(one, phrases) for one in value]
    if isinstance(value, dict):
        return {phrases.cut(key): cut_all(one, phrases) for key, one in value.items()}
    return value


def cut_labels(value: Any, phrases: Phrases) -> Any:
    """Return a JSON value with `[erased]` in every list of `labels` that has one of the texts."""
    if isinstance(value, list):
        return [cut_labels(one, phrases) for one in value]
    if not isinstance(value, dict):
        return value
    cut = {key: cut_labels(one, phrases) for key, one in value.items()}
    if isinstance(cut.get("labels"), list):
        cut["labels"] = [
            ERASED if isinstance(one, str) and one in phrases.texts else one
            for one in cut["labels"]
        ]
    return cut


def hide_touched(value: Any, phrases: Phrases) -> Any:
    """Return a JSON value with every string that may show a part of the texts put out of sight."""
    if isinstance(value, str):
        return ERASED if phrases.touches(value) else value
    if isinstance(value, list):
        return [hide_touched(one, phrases) for one in value]
    if isinstance(value, dict):
        return {key: hide_touched(one, phrases) for key, one in value.items()}
    return value


def _windows(text: str) -> Iterator[str]:
    return (text[start : start + _WINDOW] for start in range(len(text) - _WINDOW + 1))
