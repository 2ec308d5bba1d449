"""What the Hub's client has in its cache, held against the hashes that the Hub lists.

The client names a file in its cache by that hash (SHA-256 of large files, git's of small ones), and
looks at the size alone of what it was sent. What isn't what its name says is dropped, so that the
next call fetches it again, and not handed on.
"""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from registry.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


def whole_snapshot(
    fetch: Callable[[], Path], patterns: Sequence[str], repo: str, digest: Callable[[Path], str]
) -> Path:
    """Return the folder that `fetch` gives, with whole files in it; damaged ones are fetched again.

    Args:
        fetch: returns a snapshot in the client's cache.
        patterns: the files that are looked at.
        repo: for the message.
        digest: gives the SHA-256 of a file.

    Raises:
        UserError: what comes is damaged again.
    """
    folder = fetch()
    if not drop_damaged(folder, patterns, digest):
        return folder
    folder = fetch()
    if dropped := drop_damaged(folder, patterns, digest):
        raise sent_damaged(repo, dropped[0])
    return folder


def drop_damaged(
    folder: Path, patterns: Sequence[str], digest: Callable[[Path], str]
) -> tuple[str, ...]:
    """Drop the files of a snapshot that aren't what their names in the cache say; return which."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    wrong = [
        name
        for name in names
        if any(fnmatch(name, one) for one in patterns)
        and not _is_whole((folder / name).resolve(), digest)
    ]
    for name in wrong:
        (folder / name).resolve().unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
    return tuple(wrong)


def sent_damaged(repo: str, name: str) -> HubError:
    """Return the error for a file that came damaged twice."""
    return HubError(
        f"{repo}: {name} comes with other bytes than the Hub lists",
        fix="call again later, or without the proxy that is in between",
    )


def _is_whole(file: Path, digest: Callable[[Path], str]) -> bool:
    if file.parent.name != "blobs":
        return True  # a cache without links doesn't say
    if _SHA256.fullmatch(file.name):
        return digest(file) == file.name
    if _GIT.fullmatch(file.name):
        data = file.read_bytes()
        head = f"blob {len(data)}\0".encode()
        return hashlib.sha1(head + data, usedforsecurity=False).hexdigest() == file.name
    return True
