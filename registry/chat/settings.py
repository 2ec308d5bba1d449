"""What a base's chat template is told beside the messages: to think or not, and which day it is."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from registry.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Thinking = Literal["auto", "on", "off"]
System = Literal["keep", "join"]
ToolForm = Literal["template", "text"]

CLOCK = "strftime_now"
"""What templates call the function that transformers gives them to write today's date."""

_DATE = "date"
_SWITCHES = ("enable_thinking", "thinking")


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """How the spec wants a base to be spoken to.

    Attributes:
        thinking: `auto` leaves it to the template; else the template is told, and with `off` a
            generation prompt ends before the thought that it would open.
        system: `join` puts the system text in front of the first question.
        date: the day that the template writes, such as 2026-11-29; None: it writes none.
        tools: `text` says tools, calls and results in the texts of turns.
    """

    thinking: Thinking = "auto"
    system: System = "keep"
    date: str | None = None
    tools: ToolForm = "template"

    def variables(self) -> dict[str, Any]:
        """Return what the template is given beside messages and tools."""
        told: dict[str, Any] = {}
        if self.thinking != "auto":
            told |= dict.fromkeys(_SWITCHES, self.thinking == "on")
        if self.date is not None:
            told[CLOCK] = _calendar(self.date)
        return told


def _calendar(date: str) -> Callable[[str], str]:
    day = datetime.fromisoformat(date)
    return day.strftime


def switch(said: object) -> object:
    """Return 'on' and 'off' for what YAML makes of them, and anything else as it is."""
    if isinstance(said, bool):
        return "on" if said else "off"
    return said


def checked_date(text: str) -> str:
    """Return `text` if it is a day (ValueError when it isn't)."""
    datetime.fromisoformat(text)
    return text


def workspace_date(state: Path, where: str) -> str:
    """Return the day that templates of this workspace write: that of the first call.

    Templates that write today's date would otherwise ask base and adapter on two days differently,
    and nothing could be made again.

    Args:
        state: the workspace's own folder.
        where: the base in the spec, for a message.

    Raises:
        UserError: it can't be kept.
    """
    path = state / _DATE
    try:
        if not path.is_file():
            state.mkdir(parents=True, exist_ok=True)
            draft = state / f"{_DATE}.{os.getpid()}"
            draft.write_text(datetime.now(tz=UTC).date().isoformat(), encoding="utf-8")
            with suppress(FileExistsError):
                os.link(draft, path)  # the first one stays
            draft.unlink()
        return checked_date(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the date that the chat template writes can't be kept in {path}: {error}",
            where=where,
            fix="say it in the spec: date: 2026-01-31",
        ) from error
