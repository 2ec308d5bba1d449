"""Names by content: one way to write a value as bytes, and SHA-256 over it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def canonical_json(value: object) -> bytes:
    """Write a JSON value in its only canonical form.

    Keys sorted, no spaces, UTF-8 without escapes, floats by `repr`: the same bytes on any machine.

    Args:
        value: None, bool, int, float, str, and lists, tuples and string-keyed dicts of these.

    Raises:
        TypeError: for anything else, also for keys that are not strings (JSON would turn 1 into
            "1", so that two different values got one name).
        ValueError: for NaN and infinities, and for text that is not valid Unicode.
    """
    _refuse_other_keys(value)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def digest(value: object) -> str:
    """SHA-256 of the value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; reads in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other_keys(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                message = f"a canonical object needs string keys, not {key!r}"
                raise TypeError(message)
            _refuse_other_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_other_keys(inner)
