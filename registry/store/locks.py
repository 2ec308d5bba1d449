"""The one lock between processes: whoever opens the catalog file holds it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.errors import StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = "catalog.lock"


@contextmanager
def catalog_lock(root: Path, wait_s: float) -> Iterator[None]:
    """Hold the catalog's lock for the body; the kernel drops it if the process is killed.

    Not reentrant. The holder's process id is written into the lock file for those who wait.

    Args:
        root: the store's folder; made if it is absent.
        wait_s: seconds to wait for another holder.

    Raises:
        UserError: when another process still holds it after `wait_s`; names that process.
    """
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    path = root / LOCK_NAME
    lock = FileLock(path, timeout=wait_s, fallback_to_soft=False, on_acquired=_write_pid)
    try:
        lock.acquire()
    except Timeout:
        raise StoreRequestError(
            f"process {_read_pid(path)} has held the catalog for more than {wait_s:g} s",
            where=str(path),
            fix="wait for it to end and run again; `gapmend rebuild` finds all finished files",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _write_pid(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _read_pid(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip() or "?"
    except (OSError, UnicodeDecodeError):
        return "?"
