"""Formats: how a record's columns become the content of a row.

A `Format` says which columns it reads; every other column is kept in the row's `meta`, where
prompts and SQL find it. A record that can't become a row raises `UnusableError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from registry.datasets.formats.shapes import SHAPES, Shape
from registry.datasets.formats.turns import UnusableError, json_text, keys_left_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.datasets.formats.content import Content

__all__ = ["SHAPES", "Format", "FormatName", "Record", "Shape", "left_out", "plain"]

FormatName = Literal[
    "columns",
    "alpaca",
    "sharegpt",
    "messages",
    "prompt_completion",
    "text",
    "preference",
    "feedback",
    "llamafactory",
]

Record = dict[str, Any]
_OF_TURNS = ("messages", "prompt", "completion", "chosen", "rejected")


@dataclass(frozen=True)
class Format:
    """A shape with its columns settled.

    `strict` columns are as LLaMA-Factory's `columns` block: a part that it leaves out is absent.
    """

    shape: Shape
    columns: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False

    def column(self, part: str) -> str | None:
        """Return the column that holds `part`."""
        default = None if self.strict else self.shape.parts[part]
        return self.columns.get(part, default)

    @cached_property
    def used(self) -> dict[str, str]:
        """Return part -> column for each part that is read."""
        found = {part: self.column(part) for part in self.shape.parts}
        return {part: column for part, column in found.items() if column is not None}

    @cached_property
    def _read(self) -> frozenset[str]:
        return frozenset(self.used.values())

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Return the columns without which no record is usable."""
        return tuple(self.used[part] for part in self.shape.required if part in self.used)

    def content(self, record: Record) -> Content:
        """Return what the record says.

        Raises:
            UnusableError: it can't become a row.
        """
        return self.shape.read({part: record.get(column) for part, column in self.used.items()})

    def meta(self, record: Record) -> str:
        """Return the other columns as a JSON object, keys sorted.

        Raises:
            UnusableError: a value that JSON can't hold.
        """
        if record.keys() <= self._read:
            return "{}"
        rest = {key: _column(key, record[key]) for key in record if key not in self._read}
        return json_text(dict(sorted(rest.items())))


def left_out(form: Format, record: Record) -> frozenset[str]:
    """Return the keys of a record's turns that a row has no place for, such as a reasoning."""
    dialect = form.shape.dialect
    if dialect is None:
        return frozenset()
    columns = [column for part, column in form.used.items() if part in _OF_TURNS]
    values = [record.get(column) for column in columns]
    turns = [turn for value in values for turn in (value if isinstance(value, list) else [value])]
    return frozenset[str]().union(*(keys_left_out(turn, dialect) for turn in turns))


def _column(name: str, value: object) -> Any:
    """Return a column's value as JSON has it.

    Raises:
        UnusableError: it has bytes in it.
    """
    try:
        return plain(value)
    except UnusableError as error:
        raise UnusableError(f"column '{name}' holds {error.reason}") from error


def plain(value: object) -> Any:
    """Return a value of JSON: missing numbers as null, dates and the like as text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        raise UnusableError("raw bytes")
    return str(value)
