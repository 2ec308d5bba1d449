"""Texts from elsewhere within Markdown: they show as they are and begin nothing."""

from __future__ import annotations

import re


def as_text(text: str) -> str:
    r"""Return a text that Markdown shows as it is, on one line and within a cell of a table.

    A name from elsewhere (a dataset's, a licence) could else begin a link, HTML or a new row.
    """
    line = " ".join(_one_line(text).split())
    line = re.sub(r"([\\`*|<>\[\]&#~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line)  # a list, or what makes a heading


def inline(text: str) -> str:
    """Return a text as it stands between backticks, on one line."""
    return _one_line(text.replace("\n", "\\n")).replace("`", "'")


def _one_line(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)
