"""What training rows and items have in common, found whatever the order and the batches."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.duplicates import overlap
from registry.datasets.duplicates.near_duplicates import near_pairs
from registry.datasets.duplicates.overlap import HeldOut, HeldOutItem, RowWords, grams

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
QUESTION = "which of my two cards was charged twice in the shop by the river on monday"


def item(text: str, *questions: str, held_in: str = "bank test", row_hash: str = "") -> HeldOutItem:
    return HeldOutItem(held_in, "test.csv:1", row_hash, text, questions)


def said(text: str, question: str = "", row_hash: str = "other") -> RowWords:
    return RowWords(row_hash, text, question)


def kinds(held: HeldOut, row: RowWords) -> list[tuple[str, str]]:
    return [(held.items[one.item].held_in, one.kind) for one in held.find([row])]


def test_the_strongest_kind_counts_once_for_each_set() -> None:
    held = HeldOut(
        [
            item(f"{QUESTION}\ncard", QUESTION, row_hash="h1"),
            item(f"{QUESTION}\ncard", QUESTION, held_in="bank dev"),
            item(f"{THIRTEEN} and more", THIRTEEN, held_in="count test"),
        ]
    )
    row = said(f"{QUESTION}\nrefund", QUESTION, row_hash="h1")
    assert kinds(held, row) == [("bank test", "exact"), ("bank dev", "near-duplicate")]
    assert kinds(held, said(f"listen: {THIRTEEN.upper()}!", "listen to me")) == [
        ("count test", "13-gram")
    ]
    assert kinds(held, said("nothing of the kind", "nothing?")) == []


def test_the_same_words_are_exact_whatever_their_case_and_marks() -> None:
    held = HeldOut([item("What is 2 + 2?\n4", "What is 2 + 2?")])
    assert held.exact(said("what is 2 + 2\n4")) == [0]
    assert held.exact(said("what is 2 + 2\n5")) == []
    assert HeldOut([item("+ + +")]).exact(said("- - -")) == []  # no word: nothing to compare


def test_twelve_words_are_too_few_and_a_changed_word_breaks_the_run() -> None:
    held = HeldOut([item(THIRTEEN)])
    assert held.refuses(said(THIRTEEN + " more")) == "13-gram"
    assert held.refuses(said(THIRTEEN.replace("seven", "7") + " more")) is None
    assert held.refuses(said(THIRTEEN.rpartition(" ")[0] + " more")) is None
    assert list(grams("a b c")) == []


def test_a_number_alone_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all runs of words have one number, the words still tell them apart."""
    monkeypatch.setattr(overlap, "hash", lambda _: 0, raising=False)
    other = THIRTEEN.replace("one", "no")
    held = HeldOut([item(text, held_in=text) for text in (THIRTEEN, other, f"{other} {THIRTEEN}")])
    assert kinds(held, said(f"{other} more")) == [
        (other, "13-gram"),
        (f"{other} {THIRTEEN}", "13-gram"),
    ]
    assert held.refuses(said(THIRTEEN.replace("two", "2") + " more")) is None


def test_a_wording_that_many_items_share_forbids_nothing() -> None:
    wording = "what is the sum of the two numbers that i give you here now"
    rows = [item(f"{wording} {number}") for number in range(11)]
    assert HeldOut(rows).refuses(said(wording + " please")) is None  # eleven share it: too many
    assert HeldOut(rows[:10]).refuses(said(wording + " please")) == "13-gram"
    again = [item(f"{wording} 0", held_in=f"set {number}") for number in range(15)]
    assert len(HeldOut(again).find([said(wording + " please")])) == 15  # one text, copied


def test_each_form_of_a_question_counts() -> None:
    held = HeldOut([item("doc", f"Question: {QUESTION}\nAnswer:", QUESTION)])
    assert held.near(["", QUESTION.upper(), "something else"]) == {1: [0]}
    assert HeldOut([item("doc", "", " ")]).near([QUESTION, ""]) == {}


@pytest.mark.parametrize("size", [1, 7, 40])
def test_batches_change_nothing(size: int) -> None:
    rng = random.Random(size)
    words = [f"w{n}" for n in range(30)]
    texts = [" ".join(rng.choices(words, k=rng.randint(3, 20))) for _ in range(30)]
    held = HeldOut([item(text, text, held_in=f"set {n % 3}") for n, text in enumerate(texts)])
    rows = [said(text, text) for text in [*texts[:10], *(f"{one} extra" for one in texts[10:])]]
    whole = {(one.row, one.item, one.kind) for one in held.find(rows)}
    parts = {
        (start + one.row, one.item, one.kind)
        for start in range(0, len(rows), size)
        for one in held.find(rows[start : start + size])
    }
    assert parts == whole
    assert {one[0] for one in whole if one[2] == "exact"} >= set(range(10))


@given(
    st.lists(st.text("ab c", max_size=12), max_size=8),
    st.lists(st.text("ab c", max_size=12), max_size=8),
)
def test_near_is_what_ingest_calls_near(questions: list[str], asked: list[str]) -> None:
    held = HeldOut([item(text, text) for text in questions])
    found = {(row, one) for row, items in held.near(asked).items() for one in items}
    wanted = {
        (pair.left, pair.right)
        for pair in near_pairs(asked, questions)
        if asked[pair.left].strip() and questions[pair.right].strip()
    }
    assert found == wanted
