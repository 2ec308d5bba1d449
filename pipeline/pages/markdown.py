"""A report as Markdown, for a pull request: the story and the tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.pages.html import badge, lead, title
from pipeline.pages.words import story
from pipeline.workspace.inert import inert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.pages.account import Account
    from pipeline.pages.parts import Part
    from pipeline.pages.tables import Table

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$&@])")


def markdown(told: Account, made: Sequence[Part]) -> str:
    """Return the report; whatever the data say is text, not markup, and calls nobody."""
    return "\n".join(_lines(told, made)) + "\n"


def _lines(told: Account, made: Sequence[Part]) -> Iterator[str]:
    found = badge(told)
    yield f"# {_text(title(told))}"
    yield ""
    yield f"{_text(lead(told))}{f' **{found.text}**' if found else ''}"
    for chapter in story(told):
        yield f"\n**{chapter.title}**\n"
        for line in chapter.lines:
            yield f"- {_text(line)}"
    for part in made:
        yield f"\n## {part.title}"
        if part.text:
            yield f"\n{_text(part.text)}"
        for table in part.tables:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    name = _text(table.title)
    yield f"\n<details><summary>{name}</summary>\n" if table.folded else f"\n{name}\n"
    yield f"|{'|'.join(map(_text, table.columns))}|"
    yield f"|{'---|' * len(table.columns)}"
    for row in table.rows:
        yield f"|{'|'.join(map(_text, row))}|"
    if table.folded:
        yield "\n</details>"


def _text(said: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return _MARKS.sub(r"\\\1", inert(" ".join(said.split())))
