"""A base's own right answers as targets for gap rows: drawn, scored, trained, told, kept."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from pipeline.ingest import resolve
from pipeline.report.stages import select_table
from pipeline.select import SelectReport, select
from pipeline.selection.judge.own_right import NONE_RIGHT, NOT_ASKED, OWN, own_right
from pipeline.selection.judge.readings import Readings
from pipeline.selection.selection import read_selection, training_rows
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.versions.read import VersionReader
from tests.support.chat_rows import chat, write

if TYPE_CHECKING:
    from pipeline.training.examples.encode import TrainingRow

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[4] / "examples" / "quickstart" / "data" / "jobs"
ROWS, WRONG = 24, 6
SPEC = """
bases: {nano: {model: nano}}
datasets:
  jobs:
    path: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
    columns: {input: input, output: output}
  free: {path: {train: free.jsonl}}
  texts: {path: {train: texts.jsonl}}
capabilities:
  jobs: {data: jobs, answer: contains, goal: 0.9, max_new_tokens: 8}
train: {base: nano, pool: [jobs], budget_rows: 24, replay: 0, own_answers: 4}
"""


def read(split: str, count: int) -> list[dict[str, str]]:
    lines = (DATA / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


@dataclass
class Selected:
    """Of 24 rows for the gap, 18 have half of the word that the base says; 6 what it never says."""

    ws: OpenWorkspace
    report: SelectReport
    rows: list[TrainingRow]
    words: dict[str, str]  # question -> the whole word


@pytest.fixture(scope="module")
def selected(tmp_path_factory) -> Selected:
    root = tmp_path_factory.mktemp("own")
    train, free = read("train", ROWS), read("train", 200)[100:108]
    words = {row["input"]: row["output"] for row in (*train, *free)}
    for place, row in enumerate(train):
        row["output"] = "zzzz" if place < WRONG else row["output"][2:]
    write(root / "train.jsonl", train)
    free = [{**row, "output": row["output"][2:]} for row in free]
    write(root / "free.jsonl", [chat(row) for row in free])
    write(root / "texts.jsonl", [{"text": "Nothing is asked here."}])
    for split in ("dev", "test"):
        rows = read(split, 40)
        write(root / f"{split}.jsonl", [{**row, "output": "unsaid"} for row in rows])
    (root / "gapmend.yaml").write_text(SPEC, "utf-8")
    ws, ui = OpenWorkspace.open(root), Ui(as_json=True)
    report = select(ws, ui)
    rows_: Any = training_rows(resolve(ws, ui), report.selection_id)
    return Selected(ws, report, rows_, words)


def test_a_right_answer_of_the_base_is_trained_in_place_of_the_dataset_s(selected) -> None:
    said = {row.messages[0]["content"]: row.messages[-1]["content"] for row in selected.rows}
    assert len(said) == ROWS
    own = {asked for asked, answer in said.items() if answer == selected.words[asked]}
    assert len(own) >= ROWS - WRONG - 3  # 4 draws of a base that mostly says it
    assert sum(answer == "zzzz" for answer in said.values()) == WRONG
    assert not any(row.keeps for row in selected.rows)
    picks = read_selection(selected.ws.store, selected.report.selection_id)
    assert {pick.reason for pick in picks} == {"gap"}
    counts = selected.report.own_answers["jobs"]
    assert counts[OWN] == sum(pick.answer is not None for pick in picks)
    assert counts[OWN] + counts[NONE_RIGHT] == ROWS


def test_it_is_counted_and_told(selected) -> None:
    counts = selected.report.own_answers["jobs"]
    assert selected.report.deciding_tokens["own answers for gaps"] > ROWS * 20
    out = io.StringIO()
    Console(file=out, width=10_000).print(select_table(selected.report))
    assert f"answers trained for jobs: {counts[OWN]} of its own, " in out.getvalue()


def test_what_was_drawn_is_found_again_and_a_smaller_number_begins_with_the_same(
    selected, monkeypatch
) -> None:
    monkeypatch.setattr("evals.scoring.sampled._draw", None)
    ws = resolve(selected.ws, Ui(as_json=True))
    rows = list(VersionReader(ws.store, ws.versions["jobs"], "jobs").by_hash({"train"}, "x", ROWS))
    found = own_right(ws, Readings(ws, Ui(as_json=True), "nano"), "jobs", rows, 4)
    picks = read_selection(ws.store, selected.report.selection_id)
    assert found.answers == {pick.row_uid: pick.answer for pick in picks if pick.answer}


def test_rows_of_a_free_dataset_are_asked_as_they_stand(selected) -> None:
    ws = resolve(selected.ws, Ui(as_json=True))
    rows = [
        row
        for name in ("free", "texts")
        for row in VersionReader(ws.store, ws.versions[name], name).by_hash({"train"}, "x", 20)
    ]
    found = own_right(ws, Readings(ws, Ui(as_json=True), "nano"), "jobs", rows, 4)
    assert found.counts[NOT_ASKED] == 1  # the plain text
    assert found.counts[OWN] >= 6
    asked = {row.uid: row.messages[0].content for row in rows}
    assert all(selected.words[asked[uid]] in said for uid, said in found.answers.items())


def test_without_it_nothing_is_drawn_and_the_key_is_what_it_was(selected, monkeypatch) -> None:
    monkeypatch.setattr("evals.scoring.sampled._draw", None)
    spec = selected.ws.root / "gapmend.yaml"
    spec.write_text(SPEC.replace(", own_answers: 4", ""), "utf-8")
    try:
        report = select(OpenWorkspace.open(selected.ws.root), Ui(as_json=True))
    finally:
        spec.write_text(SPEC, "utf-8")
    assert report.own_answers == {}
    assert report.selection_id != selected.report.selection_id
    picks = read_selection(selected.ws.store, report.selection_id)
    assert all(pick.answer is None for pick in picks)
