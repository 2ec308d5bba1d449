"""Files of rows, and rows with input and output as a chat."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write(path: Path, rows: Sequence[Any]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def chat(row: dict[str, str]) -> dict[str, Any]:
    """Return a row as its question and answer."""
    turns = [
        {"role": "user", "content": row["input"]},
        {"role": "assistant", "content": row["output"]},
    ]
    return {"messages": turns}
