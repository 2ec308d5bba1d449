"""What a table says of a number is not another number."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.report.tables import query_table
from registry.catalog.catalog import QueryResult


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (4.08e-07, "4.08e-07"),  # how far a merge's logits are: not 0
        (-0.00042, "-0.00042"),
        (0.0012345, "0.00123"),
        (0.0, "0"),
        (0.25, "0.25"),
        (0.0456, "0.046"),
        (12.3456, "12.346"),
        (123456.7, "123,457"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_number_keeps_its_first_digits(value: float, shown: str) -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(query_table(QueryResult(("max_difference",), [(value,)])))
    assert out.getvalue().split("\n")[-3].strip("│ ") == shown
