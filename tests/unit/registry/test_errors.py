"""The exception family: places in parts, and the record that `--json` answers with."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipeline.spec.errors import InvalidSpecError
from pipeline.spec.spec import load_spec
from registry import errors
from registry.errors import (
    DataError,
    ErrorRecord,
    MachineError,
    Place,
    StoreError,
    UserError,
    place_of,
)


@pytest.mark.parametrize(
    ("where", "place"),
    [
        (None, Place()),
        ("", Place()),
        ("data/a.csv", Place("data/a.csv")),
        ("data/a.csv:17", Place("data/a.csv", 17)),
        ("data/a.csv:17 (row 3)", Place("data/a.csv", 17)),
        ("gapmend.yaml:4: bases.nano", Place("gapmend.yaml", 4, "bases.nano")),
        ("gapmend.yaml: guards.facts", Place("gapmend.yaml", key="guards.facts")),
        ("train.rank", Place("gapmend.yaml", key="train.rank")),
        ("train", Place("gapmend.yaml", key="train")),
        ("--where", Place(key="--where")),
        ("--model_args peft", Place(key="--model_args peft")),
        ("training/a b.jsonl", Place("training/a b.jsonl")),
        ("/home/a: b/c d.csv", Place("/home/a: b/c d.csv")),
        ("me/it", Place("me/it")),
    ],
)
def test_a_place_is_told_in_parts(where: str | None, place: Place) -> None:
    assert place_of(where) == place


def test_the_line_and_the_record_say_the_same() -> None:
    error = DataError("3 is\n no text", "a.csv:2", "a text", "quote it", given="3")
    assert str(error) == "a.csv:2: 3 is no text; expected a text. Quote it"
    assert error.record() == ErrorRecord(
        "data", "3 is no text", "a.csv", 2, None, "3", "a text", "quote it", exit_code=2
    )


def test_a_place_that_is_named_late_is_in_both() -> None:
    error = UserError("no such thing")
    error.place("gapmend.yaml: guards.facts")
    error.place("elsewhere")
    assert str(error) == "gapmend.yaml: guards.facts: no such thing"
    assert error.record().key == "guards.facts"


def test_each_cause_is_a_branch_with_its_exit_code() -> None:
    family = {
        (kind.kind, kind.exit_code)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.GapmendError)
    }
    mistakes = {"usage", "spec", "data", "model", "hub", "store", "machine"}
    assert family == {("fault", 3), ("gate", 1), ("store", 3), ("store", 1)} | {
        (kind, 2) for kind in mistakes
    }


def test_damage_is_the_stores() -> None:
    record = StoreError("rows.parquet: damaged").record()
    assert (record.kind, record.exit_code) == ("store", 3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "may not be read by us"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open"),
        (RuntimeError('IO Error: Cannot open file "a": Too many open files'), "too many files"),
        (RuntimeError("IO Error: ...: Permission denied"), "may not be read by us"),
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is too full"),
    ],
)
def test_what_the_machine_refuses_is_no_damage(error: Exception, said: str) -> None:
    told = errors.damaged("objects/rows/1/rows.parquet", error)
    assert isinstance(told, MachineError)
    assert said in str(told)
    assert "the store is whole" in str(told)
    assert "move .gapmend" not in str(told)


def test_a_spec_s_problems_are_one_record_with_the_others_in_it(tmp_path: Path) -> None:
    path = tmp_path / "gapmend.yaml"
    path.write_text(
        "bases: {nano: {model: nano}}\n"
        "datasets: {}\n"
        "capabilities: {}\n"
        "train: {base: nano,\n"
        "  rank: -3, method: lore}\n",
        "utf-8",
    )
    with pytest.raises(InvalidSpecError) as caught:
        load_spec(path)
    record = caught.value.record()
    told = {one.key: (one.kind, one.file, one.line, one.given) for one in (record, *record.more)}
    assert told["train.rank"] == ("spec", "gapmend.yaml", 5, "-3")
    assert told["train.method"] == ("spec", "gapmend.yaml", 5, '"lore"')
    assert all(one.expected for one in (record, *record.more))
    assert len(str(caught.value).splitlines()) == 1 + len(record.more)
