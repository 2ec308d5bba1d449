"""Paths in a spec: relative to the workspace, with `${NAME}` for environment variables."""

from __future__ import annotations

import os
import re
from pathlib import Path

from registry.errors import SpecError
from registry.store.filenames import STATE

CACHE = Path(STATE) / "cache"
"""What can be made or fetched again, in a workspace: no part of its store."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(text: str) -> str:
    """Return `text` with each `${NAME}` replaced by that environment variable.

    Raises:
        UserError: a variable that is not set or empty, or another form with a dollar sign.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found:
            raise SpecError(
                f"'{text}' needs the environment variable {match[1]}, which is not set",
                fix=f"set it, as in: export {match[1]}=/path/to/folder",
            )
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
