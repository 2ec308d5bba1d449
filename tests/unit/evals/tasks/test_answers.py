"""Answers that differ in writing alone, and those that are a table's missing cell."""

from __future__ import annotations

from evals.tasks.answers import alike, is_missing


def test_answers_that_differ_in_writing_alone_are_one_group() -> None:
    answers = ["a b", "A  b", "ab", "cafe\u0301", "café", "x", "y", "ｘ", "x"]  # noqa: RUF001
    assert alike(answers) == [("a b", "A  b", "ab"), ("cafe\u0301", "café"), ("x", "ｘ")]  # noqa: RUF001
    assert alike(["a", "b", "á"]) == []
    # As pandas' issue 20717: of a column with an empty cell, integers come as 1.0.
    assert alike(["0", "1", "-1", "1.0", "-1.00", "1.5", "v1.0", "v1"]) == [
        ("1", "1.0"),
        ("-1", "-1.00"),
    ]


def test_a_missing_cell_is_known_by_how_it_is_written() -> None:
    assert all(map(is_missing, ("nan", " #REF! ", "NULL", "None", "#N/A", "<NA>")))
    assert not any(map(is_missing, ("none", "no", "na", "banana", "0", "")))
