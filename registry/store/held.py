"""Stored files held against their manifest: whoever uses an object has its bytes hashed first.

A disk may give back other bytes than it was given, and a file may be edited: what is measured,
signed or sent under an id has to be what the id stands for. A file that was hashed once by this
process, and has kept its size, time and inode since, isn't read again.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from registry.errors import damaged
from registry.store.hashing import SETTLED_NS, file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HELD: dict[tuple[int, int, int, int], str] = {}  # device, inode, size and time -> SHA-256


def hold(folder: Path, files: Mapping[str, str]) -> None:
    """Hold files below a folder against their SHA-256 in a manifest, by name; all cores read.

    Raises:
        StoreError: one is missing, can't be read or has other bytes; names it.
    """
    with ThreadPoolExecutor(os.cpu_count()) as readers:  # hashing lets go of the interpreter
        for _ in readers.map(_hold, [folder / name for name in files], files.values()):
            pass


def _hold(path: Path, sha256: str) -> None:
    try:
        found = digest_of(path)
    except OSError as error:
        raise damaged(path, error) from error
    if found != sha256:
        raise damaged(path, ValueError("its SHA-256 is another than was written down"))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, which is read once by this process while it looks the same.

    Raises:
        OSError: it can't be read.
    """
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    found = _HELD.get(key) or file_digest(path)
    if state.st_mtime_ns < time.time_ns() - SETTLED_NS:  # a clock is coarser than two writes
        _HELD[key] = found
    return found
