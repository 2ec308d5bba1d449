"""Locks between processes: of the catalog's file, and of the rows, which an erasure takes out."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from registry.errors import StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = "catalog.lock"
ROWS_LOCK = "rows.lock"
_POLL_S = 0.05


@contextmanager
def catalog_lock(root: Path, wait_s: float, *, write: bool = True) -> Iterator[None]:
    """Hold the catalog's lock for the body; the kernel drops it if the process is killed.

    Not reentrant. The holder's process id is written into the lock file for those who wait.

    Args:
        root: the store's folder; made if it is absent.
        wait_s: seconds to wait for another holder.
        write: whether something is to be written; who only reads needs not be able to.

    Raises:
        UserError: when another process still holds it after `wait_s`; names that process.
    """
    from filelock import FileLock, Timeout

    path = root / LOCK_NAME
    if not write and is_read_only(root):
        with ExitStack() as stack:
            if not path.exists():
                pass  # nobody has ever written
            elif not stack.enter_context(_locked(path, "r", fcntl.LOCK_EX, wait_s)):
                raise _held_by(path, wait_s)
            yield
        return
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=wait_s, fallback_to_soft=False, on_acquired=_write_pid)
    try:
        lock.acquire()
    except Timeout:
        raise _held_by(path, wait_s) from None
    try:
        yield
    finally:
        lock.release()


def is_read_only(root: Path) -> bool:
    """Whether this process may not write into a store that is there."""
    return root.is_dir() and not os.access(root, os.W_OK, effective_ids=True)


def _held_by(path: Path, wait_s: float) -> StoreRequestError:
    return StoreRequestError(
        f"process {_read_pid(path)} has held the catalog for more than {wait_s:g} s",
        where=str(path),
        fix="wait for it to end and run again; `gapmend rebuild` finds all finished files",
    )


@contextmanager
def rows_stay(root: Path, wait_s: float) -> Iterator[None]:
    """Keep rows from being erased for the body, which may write down what it has read of them.

    Many may hold it at once; the kernel drops it if the process is killed.

    Args:
        root: the store's folder.
        wait_s: seconds to wait for an erasure to end.

    Raises:
        UserError: rows are still being erased.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / ROWS_LOCK, "a", fcntl.LOCK_SH, wait_s) as held:
        if not held:
            raise StoreRequestError(
                f"rows have been erased from this store for more than {wait_s:g} s",
                where=str(root / ROWS_LOCK),
                fix="wait for it to end and run again",
            )
        yield


@contextmanager
def rows_go(root: Path) -> Iterator[bool]:
    """Give whether nobody is in `rows_stay`; if so, nobody comes in before the body's end."""
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / ROWS_LOCK, "a", fcntl.LOCK_EX, 0) as held:
        yield held


@contextmanager
def _locked(path: Path, mode: str, how: int, wait_s: float) -> Iterator[bool]:
    deadline = time.monotonic() + wait_s
    with path.open(mode) as file:  # closing it lets go
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_POLL_S)
                    continue
                held = False
            else:
                held = True
            break
        yield held


def _write_pid(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _read_pid(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip() or "?"
    except (OSError, UnicodeDecodeError):
        return "?"
