"""Text that came from elsewhere, as it may stand on a terminal: what would act is shown instead.

Rows, file names, adapters' configurations and messages of libraries may hold escape sequences
(colours, a cleared screen, a changed title) and marks that turn the order of letters round. All
that is printed goes through here.
"""

from __future__ import annotations

import re

# All controls but tab and line break; marks of direction; the separators of lines and paragraphs.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    r"""Return a text with each character that would act on a terminal as JSON writes it: \u001b.

    In a line of JSON such a character stands in a text alone, so that the value stays the same.
    """
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
