"""Ingest from folders, globs, packed files and queries: the version, its sources, its key."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.ingest import ingest
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from tests.support.plain_rows import load_rows

SPEC = """\
bases: {nano: {model: nano}}
datasets:
  folder: {path: data/, split: {dev: 0, test: 0}}
  globbed: {path: {train: "data/*.jsonl*", test: "data/more/*"}}
  asked: {sql: "select * from 'data/more/*.csv' where input <> 'q7'", split: {dev: 0, test: 0}}
capabilities: {c: {data: globbed, answer: exact, goal: 0.8}}
train: {base: nano}
"""
WORDS = ("apple boat", "cloud door", "earth fire", "glass hill", "iron jungle", "kite lamp")


@pytest.fixture
def ui() -> Ui:
    return Ui(as_json=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "more").mkdir(parents=True)
    (tmp_path / "gapmend.yaml").write_text(SPEC)
    records = [{"input": words, "output": str(n)} for n, words in enumerate(WORDS)]
    lines = [json.dumps(record) + "\n" for record in records]
    (tmp_path / "data" / "a.jsonl").write_text("".join(lines[:2]))
    (tmp_path / "data" / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[2:4]).encode()))
    rest = "".join(f"{one['input']},{one['output']}\n" for one in records[4:])
    (tmp_path / "data" / "more" / "c.csv").write_text(f"input,output\n{rest}q7,7\n")
    return tmp_path


def rows(folder: Path, ui: Ui, name: str) -> tuple[Any, dict[str, tuple[str, int, str]]]:
    ws = OpenWorkspace.open(folder)
    (report,) = ingest(ws, ui, [name]).datasets
    found = load_rows(ws.store, report.version_id)
    places = {r.messages[0].content: (r.source_file, r.source_line, r.split) for r in found}
    return report, places


def test_a_folder_is_one_dataset_whose_rows_say_their_file(folder: Path, ui: Ui) -> None:
    report, places = rows(folder, ui, "folder")
    assert report.facts["rows"] == 7
    assert places["earth fire"] == ("data/b.jsonl.gz", 1, "train")
    assert places["q7"] == ("data/more/c.csv", 4, "train")
    assert rows(folder, ui, "folder")[0].cached
    (folder / "data" / "more" / "d.jsonl").write_text("")  # no rows, but another file
    again = rows(folder, ui, "folder")[0]
    assert (again.cached, again.version_id) == (False, report.version_id)


def test_globs_are_the_given_splits(folder: Path, ui: Ui) -> None:
    _, places = rows(folder, ui, "globbed")
    assert places["apple boat"][2] in ("train", "dev")  # dev is carved out of train
    assert {text for text, (*_, split) in places.items() if split == "test"} == {
        *("iron jungle", "kite lamp", "q7")
    }


def test_a_query_is_up_to_date_until_its_files_change(folder: Path, ui: Ui) -> None:
    report, places = rows(folder, ui, "asked")
    assert sorted(places) == ["iron jungle", "kite lamp"]
    assert all(source.startswith("sql-") for source, *_ in places.values())
    assert rows(folder, ui, "asked")[0].cached
    with (folder / "data" / "more" / "c.csv").open("a") as file:
        file.write("moon night,8\n")
    again, places = rows(folder, ui, "asked")
    assert (again.cached, len(places)) == (False, 3)
    assert again.version_id != report.version_id
