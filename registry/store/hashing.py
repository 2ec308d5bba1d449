"""Content addressing: one way to write a value as bytes, and SHA-256 over it."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

from registry.store.filenames import STATE
from registry.store.kept import keep, kept

if TYPE_CHECKING:
    from pathlib import Path
# Hashing a file smaller than this costs less than keeping its hash.
REMEMBER_FROM_BYTES = 64 * 2**20
HASHES = "hashes.kept"
"""The cache of hashes, in the cache's folder."""
SETTLED_NS = 2 * 10**9
_SEEN: dict[str, str] = {}  # in this process


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


def remembered_digest(path: Path, root: Path) -> str:
    """Return the SHA-256 of a file; that of a large one is kept in the workspace `root`.

    Raises:
        OSError: it can't be read.
    """
    state = path.stat()
    key = f"{path}|{state.st_size}|{state.st_mtime_ns}|{state.st_ino}"
    if key in _SEEN:
        return _SEEN[key]
    memory = root / STATE / "cache" / HASHES
    large = state.st_size >= REMEMBER_FROM_BYTES
    known = _read(memory) if large else {}
    if key not in known:
        known[key] = file_digest(path)
        if large and state.st_mtime_ns < time.time_ns() - SETTLED_NS:
            _write(memory, known)
    _SEEN[key] = known[key]
    return known[key]


def _read(memory: Path) -> dict[str, str]:
    data = kept(memory)
    return {} if data is None else dict(json.loads(data))


def _write(memory: Path, known: dict[str, str]) -> None:
    keep(memory, json.dumps(known).encode())
