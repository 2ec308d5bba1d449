"""Files that can be made again, kept with a hash of their own: one that is damaged is made again.

A file is the SHA-256 of what follows the first line, and then that.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = ".kept"


def keep(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(f"{hashlib.sha256(data).hexdigest()}\n".encode() + data)
    draft.replace(path)


def kept(path: Path) -> bytes | None:
    """Return what was kept in a file; None where there is none, or it isn't what was written."""
    try:
        said, _, data = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return data if said == hashlib.sha256(data).hexdigest().encode() else None
