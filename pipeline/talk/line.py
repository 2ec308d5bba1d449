"""A question and its answer as a line of a dataset's file, in the dataset's own form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.datasets.formats.format import SHAPES, Format
from registry.datasets.formats.turns import UnusableError
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.datasets.formats.turns import Dialect

KEPT_FROM = "kept_from"
"""The column that says by whom an answer was given, and when."""

NEW = Format(SHAPES["messages"])
"""The form of a dataset that begins with what is kept."""


def line_of(form: Format, turns: Sequence[Mapping[str, Any]], source: str) -> str:
    """Return a conversation that ends with its answer as one line of JSON.

    Args:
        form: the dataset's.
        turns: role and content of each.
        source: where it comes from.

    Raises:
        UserError: the dataset's form has no place for it, or it is no row.
    """
    record = {**_record(form, turns), KEPT_FROM: source}
    try:
        form.content(record)
    except UnusableError as error:
        raise DataError(f"this can't be a row: {error}") from None
    return json.dumps(record, ensure_ascii=False)


def _record(form: Format, turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    parts = form.used
    if "messages" in parts and form.shape.dialect is not None:
        dialect = form.shape.dialect
        return {parts["messages"]: [_turn(turn, dialect) for turn in turns]}
    for question, answer in (("input", "output"), ("prompt", "completion")):
        if question in parts and answer in parts:
            break
    else:
        raise DataError(
            "this dataset's form has no place for a question and its answer",
            expected="one with a question and an answer, or with messages",
            fix="keep it in a dataset of its own, by a name that the spec hasn't",
        )
    if len(turns) > 2:  # noqa: PLR2004 - a question and its answer
        raise DataError(
            "this dataset holds single questions, and the answer is to what was said before too",
            fix="begin a new talk and ask that alone",
        )
    return {parts[question]: turns[0]["content"], parts[answer]: turns[1]["content"]}


def _turn(turn: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    words = {role: word for word, role in reversed([*dialect.roles.items()])}
    return {
        dialect.role_key: words[turn["role"]],
        dialect.content_key: turn["content"],
    }
