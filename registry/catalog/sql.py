"""SQL statements of our own with their values written out.

DuckDB's client imports pandas, 0.3 s of a new process, as soon as one parameter is bound. What we
ask ourselves has few, short values of known types: they are written as SQL literals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Scalar = str | int | Path | None
Value = Scalar | tuple[Scalar, ...] | Sequence[tuple[Scalar, ...]] | Sequence[Path]
"""What can stand for a `?`: one value, a tuple for IN, or a list of tuples (VALUES) or files."""


def literal(value: Value) -> str:
    """Write a value as SQL; a text's quotes are doubled, and nothing else is special in it.

    Raises:
        ValueError: a text with a NUL, at which DuckDB's parser would end the statement.
    """
    if value is None:
        return "NULL"
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))})"
    if isinstance(value, list):
        return ", ".join(map(literal, value))
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if "\0" in text:
        message = f"a NUL in {text[:40]!r}"
        raise ValueError(message)
    return "'" + text.replace("'", "''") + "'"


def fill(statement: str, params: Sequence[Value]) -> str:
    """Put values in the place of a statement's `?`, in order; it has no other question marks.

    Raises:
        ValueError: more or fewer values than places, or one that can't be written.
    """
    first, *rest = statement.split("?")
    written = [literal(value) + part for value, part in zip(params, rest, strict=True)]
    return first + "".join(written)
