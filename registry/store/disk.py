"""A full disk as one clear line, however a library words it."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.errors import GapmendError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Rust and C++ libraries (polars, safetensors, DuckDB) raise their own types: the text remains.
FULL = "the disk is full, so this was not saved; all that was saved before is intact"
_WORDS = ("no space left on device", "disk quota exceeded", "file too large", "not enough space")


@contextmanager
def one_line_when_full(root: Path) -> Iterator[None]:
    """Turn the body's failure to write, when it is for lack of space, into a `UserError`.

    Raises:
        UserError: the disk, the quota or the file size limit is exhausted.
    """
    try:
        yield
    except GapmendError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise MachineError(
            FULL,
            where=str(root),
            fix="free some space and run the same command again",
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no more room, by its number or by its words."""
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    text = str(error).lower()
    return any(words in text for words in _WORDS)
