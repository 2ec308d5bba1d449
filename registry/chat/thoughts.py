"""Thoughts before answers: kept in the answer's text, as most data sets that have them keep them.

A row's messages have a role and a text. Sources that give the thought a key of its own
(`reasoning_content` and its like) become the same row as those that write it as <think>.
"""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


def with_thought(reasoning: str, answer: str) -> str:
    """Return the text of an answer with the thought before it, as rows keep it."""
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{answer}" if reasoning.strip() else answer


def thought_of(text: str) -> tuple[str, str]:
    """Return the thought that the text of an answer begins with, or '', and the answer alone."""
    found = _THOUGHT.fullmatch(text)
    return (found[1].strip(), found[2].lstrip()) if found else ("", text)
