"""A base in a GGUF file: made a folder of transformers once, in the workspace's cache.

The file's SHA-256 says which base it is. The folder is made in a limited process, under a lock,
written beside its place and renamed; what is damaged or was collected is made again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import time
from pathlib import Path

from registry.errors import MachineError, ModelError
from registry.limited import run_limited
from registry.models.smollm2 import FETCH, SHA256, SMOLLM2, smollm2_file
from registry.store.hashing import file_digest, remembered_digest
from registry.store.kept import SUFFIX, keep, kept
from registry.store.paths import CACHE

VERSION = 1
"""Raised when the same file becomes another base: other weights, tokens or template."""

_log = logging.getLogger("gapmend")
_ENDING = ".gguf"
_MADE = f"made{SUFFIX}"
_SECONDS = 120  # of CPU, for loading the libraries …
_MEGABYTE = 10**6
_BYTES_A_SECOND = 5 << 20  # … and of the file; the slowest type is read at twice this


def gguf_file(model: str, root: Path, where: str) -> Path | None:
    """Return the GGUF file that a base's `model` names; None where it names none.

    Raises:
        UserError: there is no such file.
    """
    if model == SMOLLM2:
        path = smollm2_file()
        if not path.is_file():
            raise ModelError(f"{SMOLLM2} isn't there yet", f"{where}.model", fix=f"run {FETCH}")
        if remembered_digest(path, root) != SHA256:
            raise ModelError(f"{path} isn't {SMOLLM2}'s", f"{where}.model", fix=f"run {FETCH}")
        return path
    if not model.lower().endswith(_ENDING):
        return None
    path = (root / Path(model).expanduser()).resolve()
    if not path.is_file():
        raise ModelError(f"no file {model}", f"{where}.model", "a GGUF file")
    return path


def folder_of(file: Path, root: Path, where: str) -> Path:
    """Return the folder that a GGUF file was made, which is made now where it isn't there, whole.

    Args:
        file: the GGUF file.
        root: the workspace whose cache it is kept in.
        where: the base in the spec, for messages.

    Raises:
        UserError: it is cut off, has no tokenizer, is of an architecture that isn't known, or
            can't be kept here.
    """
    from filelock import FileLock

    name = f"{remembered_digest(file, root)}-{VERSION}"
    folder = root / CACHE / "gguf" / name
    if _is_whole(folder, root):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if not _is_whole(folder, root):
                _make(file, folder, where)
    except OSError as error:
        raise MachineError(
            f"{file.name} can't be unpacked there: {error.strerror or error}", str(folder.parent)
        ) from error
    return folder


def notes_on(file: Path, root: Path, where: str) -> list[str]:
    """Return what was lost or guessed when a GGUF file was made a folder.

    Raises:
        UserError: as `folder_of`.
    """
    made = kept(folder_of(file, root, where) / _MADE)
    return [] if made is None else list(json.loads(made)["notes"])


def _make(file: Path, folder: Path, where: str) -> None:
    draft, old = (folder.with_name(f"{folder.name}.{what}") for what in ("draft", "old"))
    for left in (draft, old):  # by one that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir()
    began = time.monotonic()
    size = f"{file.stat().st_size / _MEGABYTE:,.0f} MB"
    _log.warning("%s is unpacked, once (%s) …", file.name, size)
    try:
        notes = _unpack(file, draft, where)
        files = {path.name: file_digest(path) for path in sorted(draft.iterdir())}
        keep(draft / _MADE, json.dumps({"notes": notes, "files": files}).encode())
        for path in draft.iterdir():
            with path.open("rb") as written:
                os.fsync(written.fileno())
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
        _log.warning("%s was unpacked in %.1f s", file.name, time.monotonic() - began)
    finally:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)


def _unpack(file: Path, draft: Path, where: str) -> list[str]:
    seconds = _SECONDS + file.stat().st_size // _BYTES_A_SECOND
    given = [str(file.resolve()), str(draft.resolve()), seconds]
    try:
        # Named, not imported: it stands on the models, as all that knows of GGUF does.
        done = run_limited("registry.gguf.unpack", given, seconds)
    except subprocess.TimeoutExpired:
        raise ModelError(f"reading {file.name} doesn't end", f"{where}.model") from None
    if done.returncode < 0:
        raise ModelError(f"reading {file.name} takes too much time or memory", f"{where}.model")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"{file.name} can't be a base: {said}", f"{where}.model")
    return [str(note) for note in json.loads(done.stdout.splitlines()[-1])]


def _is_whole(folder: Path, root: Path) -> bool:
    made = kept(folder / _MADE)
    if made is None:
        return False
    files = json.loads(made)["files"]
    try:
        return all(remembered_digest(folder / name, root) == sha for name, sha in files.items())
    except OSError:
        return False
