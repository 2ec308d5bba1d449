"""The clock of a store: what is put later is newer, also where the machine's clock was set back."""

from __future__ import annotations

import fcntl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "clock"
_TICK = timedelta(microseconds=1)


def moment(root: Path, *, after: datetime = datetime.min) -> str:  # noqa: DTZ901 - UTC is added
    """Return this moment (UTC, ISO 8601), later than any that was told of this store before.

    Args:
        root: the store's folder, where the last moment that was told is kept.
        after: it is later than this too; UTC, without saying so.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _NAME).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing it lets go
        file.seek(0)
        now = max(datetime.now(UTC), after.replace(tzinfo=UTC) + _TICK)
        said = file.read()
        with suppress(ValueError, TypeError):  # nothing yet, or torn by a power cut
            now = max(now, datetime.fromisoformat(said) + _TICK)
        text = now.isoformat(timespec="microseconds")
        file.truncate(0)
        file.write(text)
    return text
