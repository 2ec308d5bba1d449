"""The rule by which two versions are compared, case by case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.datasets.choices import Group
from registry.datasets.formats.content import Content, Message
from registry.datasets.history.diff import GROUPS, RowChanges, count_changes, row_changes
from registry.errors import StoreError
from tests.support.made_versions import Made, Versions, rows_of, sft

KEPT = sft("kept", "the same")


@pytest.fixture
def made(tmp_path: Path) -> Versions:
    return Versions(tmp_path)


def compared(
    made: Versions, a: list[Made], b: list[Made], show: Group | None = None, limit: int = 10
) -> RowChanges:
    ids = [made.put([Made(KEPT, file="kept"), *rows], commit=False) for rows in (a, b)]
    return row_changes(made.store, *ids, show=show, limit=limit)


def counts(**found: int) -> dict[str, int]:
    return dict.fromkeys(GROUPS, 0) | found


def said(row: dict[str, Any] | None) -> str | None:
    return None if row is None else row["messages"][-1]["content"]


def test_rows_come_and_go(made: Versions) -> None:
    found = compared(made, [Made(sft("old", "1"))], [Made(sft("new", "2"), line=7)], show="added")
    assert found.counts == counts(added=1, removed=1)
    assert found.same == 1
    assert [(said(c.before), said(c.after)) for c in found.shown] == [(None, "2")]


def test_the_same_question_with_another_answer_is_changed_wherever_it_stands(
    made: Versions,
) -> None:
    a = [Made(sft("how?", "so"), line=5)]
    b = [Made(sft("how?", "otherwise"), line=90, file="data/b.jsonl", split="dev")]
    found = compared(made, a, b, show="changed")
    assert found.counts == counts(changed=1)
    assert [(said(c.before), said(c.after)) for c in found.shown] == [("so", "otherwise")]


def test_the_same_line_of_the_same_file_is_changed(made: Versions) -> None:
    a = [Made(sft("a typo", "1"), line=5)]
    b = [Made(sft("no typo", "1"), line=5)]
    assert compared(made, a, b).counts == counts(changed=1)
    elsewhere = [Made(sft("not a typo", "1"), line=5, file="data/b.jsonl")]
    assert compared(made, a, elsewhere).counts == counts(added=1, removed=1)


def test_the_question_goes_before_the_line(made: Versions) -> None:
    a = [Made(sft("q", "old"), line=5)]
    b = [Made(sft("another", "x"), line=5), Made(sft("q", "new"), line=6)]
    found = compared(made, a, b, show="changed")
    assert found.counts == counts(changed=1, added=1)
    assert [(said(c.before), said(c.after)) for c in found.shown] == [("old", "new")]


def test_several_of_one_question_are_paired_in_their_order(made: Versions) -> None:
    a = [Made(sft("q", f"old {n}"), line=n) for n in range(3)]
    b = [Made(sft("q", f"new {n}"), line=10 + n) for n in range(2)]
    found = compared(made, a, b, show="changed")
    assert found.counts == counts(changed=2, removed=1)
    assert [(said(c.before), said(c.after)) for c in found.shown] == [
        ("old 0", "new 0"),
        ("old 1", "new 1"),
    ]


def test_another_split_is_moved_and_other_columns_are_annotated(made: Versions) -> None:
    a = rows_of([sft("x", "1"), sft("y", "2"), sft("z", "3")])
    b = [
        replace(a[0], split="held"),
        replace(a[1], meta='{"source":"web"}'),
        replace(a[2], tags=("checked",)),
    ]
    found = compared(made, a, b, show="moved")
    assert found.counts == counts(moved=1, annotated=2)
    assert found.same == 1
    (moved,) = found.shown
    assert moved.before is not None
    assert moved.after is not None
    assert (moved.before["split"], moved.after["split"]) == ("train", "held")
    assert len(compared(made, a, b, show="annotated").shown) == 2


def test_the_order_and_the_licence_change_no_row(made: Versions) -> None:
    rows = rows_of([sft("x", "1"), sft("y", "2")])
    ids = [made.put(rows, commit=False), made.put(rows[::-1], license_="MIT", commit=False)]
    assert ids[0] != ids[1]
    found = row_changes(made.store, *ids)
    assert found.counts == counts()
    assert found.same == 2


ANSWER = (Message("assistant", "yes"),)
QUESTION = (Message("user", "well?"),)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            Content("feedback", (*QUESTION, *ANSWER), label=True),
            Content("feedback", (*QUESTION, *ANSWER), label=False),
        ),
        (
            Content("preference", QUESTION, chosen=ANSWER, rejected=(Message("assistant", "no"),)),
            Content("preference", QUESTION, chosen=(Message("assistant", "no"),), rejected=ANSWER),
        ),
        (sft("well?", "yes"), Content("preference", QUESTION, chosen=ANSWER, rejected=QUESTION)),
    ],
)
def test_each_kind_has_its_question(made: Versions, before: Content, after: Content) -> None:
    b = [Made(after, line=2)]
    assert compared(made, [Made(before)], b).counts == counts(changed=1)


def test_a_text_has_a_place_alone(made: Versions) -> None:
    one, two, six = (Content("text", (Message("text", words),)) for words in ("one", "two", "six"))
    assert compared(made, [Made(one)], [Made(two)]).counts == counts(changed=1)
    assert compared(made, [Made(one)], [Made(six, line=2)]).counts == counts(added=1, removed=1)


def test_no_more_rows_are_shown_than_were_asked_for(made: Versions) -> None:
    b = rows_of([sft(f"q{n}", "a") for n in range(9)])
    found = compared(made, [], b, show="added", limit=4)
    assert found.counts == counts(added=9)
    assert [said(c.after) for c in found.shown] == ["a"] * 4
    assert [c.after["source_line"] for c in found.shown if c.after] == [1, 2, 3, 4]


def test_the_history_counts_contents(made: Versions) -> None:
    a = made.put(rows_of([sft("a", "1"), sft("b", "2")]), commit=False)
    b = made.put([Made(sft("b", "2"), "dev"), *rows_of([sft("c", "3")])], commit=False)
    assert count_changes(made.store, a, b) == (1, 1)


def test_a_version_compared_with_itself_is_the_same(made: Versions) -> None:
    a = made.put(rows_of([sft("a", "1"), sft("b", "2")]), commit=False)
    found = row_changes(made.store, a, a, show="changed")
    assert (found.same, found.counts, found.shown) == (2, counts(), ())


def test_a_damaged_file_is_named(made: Versions) -> None:
    a = made.put(rows_of([sft("a", "1")]), commit=False)
    b = made.put(rows_of([sft("b", "1")]), commit=False)
    path = made.store.get("dataset_version", b).path / "refs.parquet"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(StoreError, match="gapmend fsck"):
        row_changes(made.store, a, b)
