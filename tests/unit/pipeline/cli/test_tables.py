"""What a table says of a number is not another number."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.report.stages import select_table
from pipeline.report.tables import query_table
from pipeline.select import SelectReport
from pipeline.selection.assemble import SelectionPart
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


def test_what_select_kept_out_is_told_so_that_its_command_can_be_run() -> None:
    """Before, labels were read as markup, and a narrow table broke the id in two: no row came."""
    report = SelectReport(
        selection_id="0123456789abcdef" * 4,
        base="b",
        round=0,
        rows=2,
        replay_rows=1,
        budget={"s": 2},
        replay={},
        parts=(SelectionPart("s", "gap", 1, None), SelectionPart("chats", "replay", 1, None)),
        near_duplicates=0,
        leaks={},
        rejects=0,
        missing={"s": 1},
        short_of={"s": "there are 1 of 'd', fewest of '[/b]' (0), '[red]' (1)"},
        set_aside={"mislabelled": 3},
        deciding_tokens={},
        run_id="r",
        cached=False,
        seconds=0.0,
    )
    out = io.StringIO()
    Console(file=out, width=40).print(select_table(report))
    said = " ".join(out.getvalue().split())
    assert "fewest of '[/b]' (0), '[red]' (1)" in said
    assert "answers it right" not in said  # to a chat nobody knows the right answer
    assert said.endswith("from rejects where object_id like '0123456789ab%'\"")
