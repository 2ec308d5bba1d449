"""The code that a card shows, to run it."""

from __future__ import annotations


def example_code(card: str) -> str:
    """Return the Python code in a card that says how to load what it describes."""
    return card.split("```python\n", 1)[1].split("\n```", 1)[0] + "\n"
