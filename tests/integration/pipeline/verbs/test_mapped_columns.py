"""A column that the spec maps and a file's records don't have: told by `ingest` and by `check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.ingest import ingest
from pipeline.verbs.check import check
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError

SPEC = """
bases: {nano: {model: nano}}
datasets:
  facts: {path: {train: a.jsonl, test: b.jsonl}, columns: {%s}, split: {dev: 9}, allow_rejects: 0.9}
capabilities: {facts: {data: facts, answer: exact, goal: 0.5, margin: 0.2}}
train: {base: nano}
"""
MAPPED = "input: q, output: a"


def workspace(folder: Path, columns: str, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """Two files of 90 records with these columns."""
    (folder / "gapmend.yaml").write_text(SPEC % columns)
    for number, (name, keys) in enumerate({"a.jsonl": first, "b.jsonl": second}.items()):
        rows = [{key: f"{key} {number} {n} {n * n}" for key in keys} for n in range(90)]
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize(
    ("columns", "first", "second", "said", "where"),
    [
        (MAPPED, ("question", "a"), ("q", "a"), "'q'", "a.jsonl"),
        (MAPPED, ("q", "a"), ("qq", "a"), "'q'", "b.jsonl"),
        (f"{MAPPED}, system: sys", ("q", "a"), ("q", "a"), "'sys'", "a.jsonl"),
    ],
)
def test_a_column_that_a_file_lacks_stops_ingest_and_check(
    tmp_path: Path, columns: str, first: tuple[str, ...], second: tuple[str, ...], said, where
) -> None:
    workspace(tmp_path, columns, first, second)
    part = "system" if "sys" in columns else "input"
    there = ", ".join(first if where == "a.jsonl" else second)
    for verb in (ingest, check):
        ws = OpenWorkspace.open(tmp_path)
        with pytest.raises(UserError) as caught:
            verb(ws, Ui(as_json=True))
        (line,) = str(caught.value).splitlines()
        assert f"datasets.facts.columns.{part}: none of the 90 records of {where} has a " in line
        assert f"column {said}" in line
        assert f"expected one of its columns {there}" in line
        assert caught.value.exit_code == 2
        assert not ws.catalog.query("select * from rows").rows
        assert {path.name for path in (tmp_path / ".gapmend/objects").glob("*")} <= {"uids"}


def test_a_column_that_need_not_be_there_may_be_in_one_of_the_files(tmp_path: Path) -> None:
    workspace(tmp_path, f"{MAPPED}, system: sys", ("q", "a", "sys"), ("q", "a"))
    ws = OpenWorkspace.open(tmp_path)
    (made,) = ingest(ws, Ui(as_json=True)).datasets
    assert made.facts["rejects"] == 0
