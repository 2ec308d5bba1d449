"""What a round of mending adds nothing for, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

from pipeline.measure.filling import RowSource, unfilled, why_unfilled

FACTS = RowSource("guards.facts", "facts", 23, 16, 30, witness=False)


def test_a_round_fills_in_what_it_has_rows_for() -> None:
    sources = {"facts", "sums"}
    assert unfilled(["facts", "sums"], {"facts": 10, "mood": 25}, sources, ()) == ("sums",)
    assert unfilled(["facts"], {"mood": 25}, sources, ()) == ("facts",)
    assert unfilled(["facts"], {"facts": -3}, sources, ()) == ("facts",)
    assert unfilled([], {"mood": 25}, sources, ()) == ()
    assert unfilled(["facts"], {"facts": 1}, sources, ()) == ()


def test_a_chat_dataset_serves_what_has_no_rows_of_its_own() -> None:
    assert unfilled(["task", "facts"], {"chat": 40}, {"facts"}, ["chat"]) == ("facts",)
    assert unfilled(["task"], {"chat": 0, "mood": 25}, {"facts"}, ["chat"]) == ("task",)
    assert unfilled(["task"], {"chat": 1}, {"facts"}, ["chat", "web"]) == ()
    assert unfilled(["task"], {"mood": 25}, {"facts"}, ["web"]) == ("task",)


def test_what_is_missing_is_said_with_what_would_help() -> None:
    assert why_unfilled(FACTS, None) == (
        "facts: of 23 rows for training in dataset 'facts' the 16 that the base gets right are "
        "replayed already, 30 more were wanted: add rows to it"
    )
    full = why_unfilled(replace(FACTS, short=0), 300)
    assert (
        full == "facts: the selection may have no more than its 300 rows: raise train.budget_rows"
    )
    assert why_unfilled(FACTS, 300) == why_unfilled(FACTS, None)  # it ran out before that
    assert why_unfilled(replace(FACTS, dataset=None), None).startswith(
        "facts has no rows to replay, being an lm-eval task: name a chat dataset in train.pool"
    )
    witness = why_unfilled(replace(FACTS, witness=True), None)
    assert witness.startswith("facts is a witness, so none of its rows is trained on")
    assert "guards.facts.replay: true" in witness
