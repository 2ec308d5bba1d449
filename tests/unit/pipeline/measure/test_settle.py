"""How many items would settle a verdict, and where they are."""

from __future__ import annotations

from dataclasses import replace

from pipeline.measure.settle import Supply, how_to_settle

BANK = Supply("capabilities.intent", "test", 200, 480, 200, "bank", "margin")


def test_a_limit_that_cuts_off_what_is_there_is_named() -> None:
    assert how_to_settle(BANK, 460) == (
        "about 460 items would settle it, 480 are there and capabilities.intent.limit is 200: "
        "raise it to 460"
    )


def test_rows_that_are_not_there_are_counted() -> None:
    assert how_to_settle(BANK, 1480) == (
        "about 1,480 items would settle it, 480 are there: take capabilities.intent.limit out and "
        "add 1,000 rows to test of dataset 'bank'"
    )
    whole = replace(BANK, n=480, limit=None)
    assert how_to_settle(whole, 500).endswith(
        "480 are there: add 20 rows to test of dataset 'bank'"
    )
    assert "limit" not in how_to_settle(replace(whole, limit=600), 500)  # it cuts nothing off


def test_a_task_of_lm_eval_has_what_it_has() -> None:
    task = Supply("guards.facts", "test", 100, None, 100, None, "max_drop")
    assert how_to_settle(task, 300).endswith("raise guards.facts.limit, which is 100")
    assert how_to_settle(replace(task, limit=None), 300).endswith("the task has no more")


def test_where_no_number_of_items_would_do() -> None:
    assert how_to_settle(BANK, None) == (
        "no number of items would settle it: only a wider capabilities.intent.margin would"
    )
