"""init: a workspace to start from, that runs as it is and is meant to be edited."""

from __future__ import annotations

import shutil
from pathlib import Path

from registry.errors import UserError

STARTER = Path(__file__).parent / "starter"


def init(folder: Path) -> list[Path]:
    """Copy the starter (a commented spec and a small dataset) into `folder`.

    Returns:
        The files made.

    Raises:
        UserError: `folder` already has one of them; nothing is written then.
    """
    files = sorted(path for path in STARTER.rglob("*") if path.is_file())
    targets = [folder / path.relative_to(STARTER) for path in files]
    for target in targets:
        if target.exists():
            raise UserError(
                "already there, and init overwrites nothing",
                where=str(target),
                fix="name an empty folder: gapmend init NEW_FOLDER",
            )
    for source, target in zip(files, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return targets
