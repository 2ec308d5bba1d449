"""Paths in a spec: relative to the workspace, with `${NAME}` for environment variables."""

from __future__ import annotations

import os
import re
from pathlib import Path, PureWindowsPath

from registry.errors import SpecError
from registry.store.filenames import STATE

CACHE = Path(STATE) / "cache"
"""What can be made or fetched again, in a workspace: no part of its store."""

SECRET_NAME = re.compile(r"token|secret|passw|api_?key|private_?key|credential", re.IGNORECASE)
"""What the name of an environment variable has in it where its value is secret."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FIX = "a variable holds a path that starts with / or a dot, as in: export DATA=/path/to/folder"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def expand(text: str, *, hub: bool = False) -> str:
    """Return the path `text` with each `${NAME}` replaced by that environment variable.

    A variable is a path itself: what else one holds, a secret above all, gets into no text of ours.

    Args:
        text: of the spec.
        hub: an id on the Hub will do as well.

    Raises:
        UserError: a variable that is not set, empty or no path; or another form with a dollar sign.
    """

    def value(match: re.Match[str]) -> str:
        if SECRET_NAME.search(match[1]):
            raise SpecError(f"'{text}' names {match[1]}, which is a secret by its name", fix=_FIX)
        found = os.environ.get(match[1])
        if not found:
            raise SpecError(
                f"'{text}' needs the environment variable {match[1]}, which is not set",
                fix=f"set it, as in: export {match[1]}=/path/to/folder",
            )
        if not _is_path(found) and not (hub and _HUB_ID.fullmatch(found)):
            what = "neither a path nor a Hub id" if hub else "no path"
            raise SpecError(f"'{text}': the value of {match[1]} is {what}", fix=_FIX)
        return found

    if "$" in _VARIABLE.sub("", text):
        raise SpecError(f"'{text}' has a dollar sign", expected="variables as ${NAME} alone")
    return _VARIABLE.sub(value, text)


def resolve(text: str, root: Path) -> Path:
    """Return the file or folder that a spec in `root` means by `text`.

    Raises:
        UserError: as `expand`.
    """
    return root / Path(expand(text))


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~", ".")) or bool(PureWindowsPath(text).drive)


def label(text: str, root: Path) -> str:
    """Return a path as it is recorded: as written, or relative to the workspace."""
    path = Path(text)
    if path.is_absolute():
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return path.as_posix()
