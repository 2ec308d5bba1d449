"""The scorer of orders: right is the order as JSON, however it is spaced."""

from __future__ import annotations

import json
from collections.abc import Mapping


def order(answer: str, expected: str, fields: Mapping[str, str]) -> float:
    """Return 1 for JSON with the expected keys and values, else 0."""
    del fields
    try:
        return float(json.loads(answer) == json.loads(expected))
    except ValueError:
        return 0.0
