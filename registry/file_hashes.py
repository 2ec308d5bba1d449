"""Hashes of large files, kept: a file that looks as it did is not read again.

It looks the same when path, size, time of change and inode do, as git and DVC have it. A file that
was changed just now is hashed again the next time: it may change once more within its clock's tick.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from registry.filenames import STATE
from registry.hashing import file_digest

if TYPE_CHECKING:
    from pathlib import Path

# Hashing a file smaller than this costs less than keeping its hash.
REMEMBER_FROM_BYTES = 64 * 2**20
SETTLED_NS = 2 * 10**9
_SEEN: dict[str, str] = {}  # in this process


def remembered_digest(path: Path, root: Path) -> str:
    """Return the SHA-256 of a file; that of a large one is kept in the workspace `root`.

    Raises:
        OSError: it can't be read.
    """
    state = path.stat()
    key = f"{path}|{state.st_size}|{state.st_mtime_ns}|{state.st_ino}"
    if key in _SEEN:
        return _SEEN[key]
    memory = root / STATE / "cache" / "hashes.json"
    large = state.st_size >= REMEMBER_FROM_BYTES
    known = _read(memory) if large else {}
    if key not in known:
        known[key] = file_digest(path)
        if large and state.st_mtime_ns < time.time_ns() - SETTLED_NS:
            _write(memory, known)
    _SEEN[key] = known[key]
    return known[key]


def _read(memory: Path) -> dict[str, str]:
    try:
        return {str(key): str(said) for key, said in json.loads(memory.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _write(memory: Path, known: dict[str, str]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    draft = memory.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(known), "utf-8")
    draft.replace(memory)
