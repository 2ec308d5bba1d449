"""What using a model elsewhere takes, for tests of what is written about it."""

from __future__ import annotations

import json
import re
from typing import Any

from registry.publish.use.usage import Asked, Example, Place, Usage, UsedBase

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REQUEST = re.compile(r"^(curl .*) -d @- <<'JSON'\n(.*)\nJSON$", re.DOTALL)


def usage(name: str = "me/base", prompt: str = "Which? {input}", **changes: Any) -> Usage:
    """Return the usage of a LoRA adapter on a base of the Hub, with other values where given."""
    asked = Asked("moods", prompt, None, "exact", 8, "none: it was trained for this")
    example = Example(
        ({"role": "user", "content": prompt},), ends=((4, "<|end|>"),), tokens=asked.tokens
    )
    given: dict[str, Any] = {
        "kind": "adapter",
        "name": "base-12345678",
        "place": Place(),
        "base": UsedBase(name, "c0ffee", "d" * 64, dtype="bfloat16"),
        "example": example,
        "asked": (asked,),
        "rank": 16,
        "vllm_rank": 16,
        "template_file": "chat_template.jinja",
    }
    return Usage(**{**given, **changes})


def blocks(text: str, kind: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return [code for language, code in _FENCE.findall(text) if language == kind]


def request(block: str) -> tuple[str, dict[str, Any]]:
    """Return the command of a request and the JSON that it sends."""
    found = _REQUEST.fullmatch(block.strip())
    assert found, block
    return found[1], json.loads(found[2])
