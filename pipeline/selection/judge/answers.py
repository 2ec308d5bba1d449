"""Answers of the base that may be replayed: no refusals, nothing that goes round in circles. Pure.

What is filtered here would be trained: a base that refuses or repeats itself would do it more.
"""

from __future__ import annotations

import re

UNUSABLE = {
    "endless repetition": "says the same over and over",
    "answers without end": "doesn't end",
    "empty answers": "is empty",
    "refusals": "is a refusal",
    "echoes": "is the question",
}
"""Kind -> what is said of such an answer of the base."""

_REFUSAL = re.compile(
    r"(i'?m sorry|i am sorry|sorry,|i apologi[sz]e|my apologies|unfortunately,)[ ,].{0,80}"
    r"\b(can'?t|cannot|can not|unable|not able|couldn'?t|don'?t have|do not have)\b"
    r"|(i|we) (can'?t|cannot|can not|won'?t|will not|am unable|'?m unable|am not able|'?m not able)"
    r" (to )?(help|assist|answer|provide|fulfil|comply|do that|do this|access|browse|engage|write)"
    r"|as an? (ai|artificial intelligence|language model|large language model)\b",
    re.IGNORECASE | re.DOTALL,
)
_GRAM, _FEWEST_CHARACTERS, _LEAST_DISTINCT = 12, 72, 0.5


def why_unusable(answer: str, question: str, *, ended: bool) -> str | None:
    """Return why an answer of the base is not to be replayed, of `UNUSABLE`; None if it may be.

    Args:
        answer: what it said.
        question: the last thing that it was asked.
        ended: whether it ended by itself; one that was cut would teach to stop in mid-sentence.
    """
    said = answer.strip()
    if repeats(said):
        return "endless repetition"
    if not ended:
        return "answers without end"
    if not said:
        return "empty answers"
    if _REFUSAL.match(said.replace("\u2019", "'")):
        return "refusals"
    return "echoes" if said == question.strip() else None


def repeats(text: str) -> bool:
    """Return whether a text mostly says again what it has said.

    It does where fewer than half of its pieces of 12 characters differ: in any script, a sentence
    that comes three times, a word without end, a list whose items are all the same.
    """
    if len(text) < _FEWEST_CHARACTERS:
        return False
    pieces = [text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)]
    return len(set(pieces)) < _LEAST_DISTINCT * len(pieces)
