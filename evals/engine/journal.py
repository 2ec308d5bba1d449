"""The journal of answers: on disk as they come, so that a killed evaluation resumes at the item.

One file an evaluation, named by its key: no answer of another model, prompt or setting can get in.
A line is one answered request with a hash of its own. Lines are handed to the system as whole
lines, several times a second: a killed process loses nothing that was handed over, and a line that
is torn or damaged is passed over. They are not forced to the disk, since a power cut costs no more
than asking again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER = "partial"
"""Where journals are, under the store's root."""

_HAND_OVER_S = 0.2


class Journal:
    """The requests that were answered so far, by their own content.

    Attributes:
        known: how many were there when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there; the file is made with the first answer."""
        self.path = path
        self._answers = _read(path)
        self.known = len(self._answers)
        self._lines: list[bytes] = []
        self._due = 0.0

    def get(self, key: str) -> Any | None:
        """Return the answer to a request, None if there is none yet."""
        return self._answers.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Keep an answer: a text, or a log-likelihood with whether it is greedy."""
        said = json.dumps([key, answer])
        self._lines.append(json.dumps([said, _check(said)]).encode() + b"\n")
        if time.monotonic() >= self._due:
            self.flush()
            self._due = time.monotonic() + _HAND_OVER_S

    def flush(self) -> None:
        """Hand over what has been added."""
        if not self._lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever else works at this evaluation appends whole lines too.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, b"".join(self._lines))
        finally:
            os.close(file)
        self._lines.clear()

    def discard(self) -> None:
        """Remove it: the whole evaluation is kept elsewhere now."""
        self._lines.clear()
        self.path.unlink(missing_ok=True)


def keys_of(kind: str, requests: Sequence[Sequence[Any]]) -> list[str]:
    """Return a key for each request: the digest of its kind and its two arguments.

    A context that many choices share is read once.
    """
    keys: list[str] = []
    context: Any = None
    head = hashlib.blake2b()
    choices: dict[str, bytes] = {}  # the same few texts behind every context
    for first, rest in requests:
        if context is not first:
            context, head = first, hashlib.blake2b(digest_size=16)
            head.update(json.dumps([kind, first]).encode())
        one = head.copy()
        if isinstance(rest, str):
            if rest not in choices:
                choices[rest] = _written(rest)
            one.update(choices[rest])
        else:
            one.update(_written(rest))
        keys.append(one.hexdigest())
    return keys


def _written(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):  # what follows must not join a torn line
        with path.open("ab") as file:
            file.write(b"\n")
    found: dict[str, Any] = {}
    for line in data.splitlines():
        try:
            said, check = json.loads(line)
        except (ValueError, TypeError):
            continue
        if isinstance(said, str) and check == _check(said):  # else it is asked again
            key, answer = json.loads(said)
            found[key] = answer
    return found


def _check(said: str) -> str:
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
