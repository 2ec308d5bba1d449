"""The parts of a report: tables that say what there is to say, and no column that says nothing."""

from __future__ import annotations

from dataclasses import replace

from pipeline.pages.items import ItemChanged, NearRow
from pipeline.pages.parts import parts
from pipeline.pages.tables import Table, shortened
from tests.support.accounts import account

NEAR = NearRow("colours", "mend", "data/c.jsonl:3", "a row", 0.5)
NONE = dict.fromkeys(("gap", "forgetting", "selection", "training", "mending", "lineage"), ())


def tables(*changed: ItemChanged, **other: object) -> dict[str, Table]:
    made = parts(account(**other), NONE, changed)
    return {table.title: table for part in made for table in part.tables}


def test_a_column_that_says_nothing_is_left_out() -> None:
    found = tables()
    assert "mean likeness to what was lost" not in found["The first adapter: 40 rows"].columns
    assert "KL" in found["On test"].columns


def test_rows_stand_beside_their_budget() -> None:
    chosen = tables()["Round 1: 60 rows"]
    assert chosen.columns == ("for", "why", "budget", "rows")
    assert chosen.rows == (
        ("moods", "for a gap", "40", "40"),
        ("colours", "fills in a loss", "", "20"),
    )


def test_items_say_how_many_there_are() -> None:
    lost = ItemChanged("colours", "lost", "What?", "red", "red", "blue", NEAR)
    found = tables(lost)["colours: 1 lost"]
    assert found.cards
    assert found.rows[0][:5] == ("What?", "red", "red", "blue", "a row")
    assert "colours: 1 gained" in tables(replace(lost, way="gained"))


def test_what_was_erased_is_said() -> None:
    gone = ItemChanged("colours", "lost", "", "", "", "", None)
    found = tables(gone, erased=2)
    assert found["colours: 1 lost"].rows == (("[erased]", "", "", "", "", ""),)
    again = next(part for part in parts(account(erased=2), NONE, ()) if part.id == "again")
    assert again.text == "It can't be trained again: 2 of its rows were erased."


def test_the_proof_is_in_words() -> None:
    proof = {row[0]: row[1] for row in tables()["Proof of the merge"].rows}
    assert proof["allowed"] == "1.0e-04"
    assert proof["computed in"] == "fp32"


def test_a_long_text_keeps_its_ends() -> None:
    said = shortened("a" * 1_000_000 + "What is asked?")
    assert len(said) < 2_000
    assert said.startswith("aaa")
    assert said.endswith("What is asked?")
    assert "characters are left out" in said
    assert shortened("short") == "short"
