"""A base's own text as rows: asked and drawn once, replayed, trained, and found again by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evals.scoring.own_answers import OwnAnswer
from pipeline.ingest import resolve
from pipeline.mend import _with_free
from pipeline.select import SelectReport, select
from pipeline.selection.budget import Budget, Need
from pipeline.selection.held_out import refuse_leaks
from pipeline.selection.judge import own_text as module
from pipeline.selection.judge.own_text import decided_by, own_text
from pipeline.selection.judge.readings import Readings
from pipeline.selection.selection import read_selection, training_rows
from pipeline.train import train
from pipeline.verbs.leaks import leaks
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import DataError
from registry.lineage.adapter_facts import describe
from tests.support import tiny_models

if TYPE_CHECKING:
    from pipeline.training.examples.encode import TrainingRow

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[4] / "examples" / "quickstart" / "data" / "sentiment"
ROWS, OWN = 60, 12
SPEC = """
bases: {nano: {model: nano}}
datasets:
  mood:
    path: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
    columns: {input: input, output: output}
capabilities:
  mood:
    {data: mood, answer: choice, goal: 0.99, prompts: {zero_shot: "Positive or negative? {input}"}}
train: {base: nano, budget_rows: 60, general: 0.2, replay: 0, epochs: 1}
"""


def workspace(root: Path, text: str = SPEC) -> OpenWorkspace:
    for split, count in (("train", 120), ("dev", 40), ("test", 40)):
        lines = (DATA / f"{split}.jsonl").read_text("utf-8").splitlines()[:count]
        (root / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    (root / "gapmend.yaml").write_text(text, "utf-8")
    return OpenWorkspace.open(root)


@dataclass
class Selected:
    """What was chosen with a fifth of own text."""

    ws: OpenWorkspace
    ui: Ui
    report: SelectReport
    rows: list[TrainingRow]


@pytest.fixture(scope="module")
def selected(tmp_path_factory) -> Selected:
    ws, ui = workspace(tmp_path_factory.mktemp("own")), Ui(as_json=True)
    report = select(ws, ui)
    rows: Any = training_rows(resolve(ws, ui), report.selection_id)
    return Selected(ws, ui, report, rows)


def test_own_text_is_chosen_beside_the_gap_s_rows_and_spread_among_them(selected) -> None:
    assert selected.report.replay == {"own text": OWN}
    assert (selected.report.rows, selected.report.replay_rows) == (ROWS, OWN)
    picks = read_selection(selected.ws.store, selected.report.selection_id)
    own = [pick for pick in picks if pick.capability == "own text"]
    assert [pick.reason for pick in own] == ["replay"] * OWN
    assert all(pick.answer is None for pick in own)  # the rows say it themselves
    ranks = [pick.rank for pick in own]
    assert max(b - a for a, b in pairwise(ranks)) <= 6
    assert selected.report.deciding_tokens["own text"] > 0


def test_own_text_is_trained_as_the_base_said_it(selected) -> None:
    own = [row for row in selected.rows if row.capability == "own text"]
    asked = [[dict(row.messages[0])] for row in own]
    assert all(turns[0]["content"] in module.instructions() for turns in asked)
    said = Readings(resolve(selected.ws, selected.ui), selected.ui, "nano").own_answers(asked, "x")
    answers = [one.text.strip() for one in said if one is not None]
    assert [row.messages[1]["content"] for row in own] == answers
    assert all(row.keeps == (row in own) for row in selected.rows)


def test_own_text_is_made_once(selected, monkeypatch) -> None:
    monkeypatch.setattr(Readings, "own_answers", None)
    ws = resolve(selected.ws, selected.ui)
    few, more = (own_text(ws, selected.ui, "nano", wanted) for wanted in (1, OWN))
    assert few == more
    assert few.rows >= OWN


def test_rows_of_an_adapter_name_where_own_text_came_from(selected) -> None:
    made = train(selected.ws, selected.ui, selected.report.selection_id)
    digest = selected.ws.models.identity("nano").digest
    found = selected.ws.catalog.query(
        "SELECT dataset, source_file, capability, reason, count(*) FROM rows_of(?) "
        "WHERE capability = 'own text' GROUP BY ALL",
        [made.adapter_id],
    ).rows
    assert [tuple(row) for row in found] == [
        ("own text", f"own text of base {digest[:12]}", "own text", "replay", OWN)
    ]
    told = describe(selected.ws.store, selected.ws.catalog, made.adapter_id)
    assert ("own text", OWN) in {(one.dataset, one.rows) for one in told.taught}
    looked = leaks(selected.ws, selected.ui, made.adapter_id)
    assert looked.clean


def test_own_text_that_says_what_is_measured_by_is_not_trained_on(selected) -> None:
    """A dev item that came in later says what an instruction asks."""
    asked = next(row for row in selected.rows if row.capability == "own text")
    text = (selected.ws.root / "dev.jsonl").read_text("utf-8")
    line = json.dumps({"input": asked.messages[0]["content"], "output": "good"})
    (selected.ws.root / "dev.jsonl").write_text(f"{text}{line}\n", "utf-8")
    ws = OpenWorkspace.open(selected.ws.root)
    try:
        with pytest.raises(DataError, match=r"own text of base \w+:\d+: row \d+ of the selection"):
            refuse_leaks(resolve(ws, selected.ui), selected.report.selection_id)
    finally:
        (selected.ws.root / "dev.jsonl").write_text(text, "utf-8")


def test_a_base_that_only_repeats_itself_is_said_and_selection_goes_on(
    tmp_path, monkeypatch, capsys
) -> None:
    over = OwnAnswer("round and round " * 20, ended=False, tokens=60)
    monkeypatch.setattr(Readings, "own_answers", lambda _self, asked, _label: [over] * len(asked))
    monkeypatch.setattr(Readings, "drawn", lambda _self, _asked, count, _label: [over] * count)
    report = select(workspace(tmp_path), Ui(as_json=True))
    assert (report.rows, report.replay_rows) == (ROWS - OWN, 0)
    assert report.missing == {"own text": OWN}
    assert report.short_of == {"own text": "there are 0 that the base can be trained to say again"}
    lines = [line for line in capsys.readouterr().err.splitlines() if "can be replayed" in line]
    assert lines == [
        "own text of base 'nano': none of the 24 texts can be replayed (24 endless repetition)"
    ]


def test_what_the_template_would_not_train_is_left_out(selected) -> None:
    """An end of turn in the middle of what was said."""
    loaded = selected.ws.models.get("nano")
    stop = loaded.tokenizer.decode([min(loaded.chat.stops)])
    whole, broken = module._Said("Hello", "Good day"), module._Said("Hello", f"Good{stop} day")
    assert module._trainable(loaded, [whole, broken]) == [whole]


def test_a_lost_guard_without_rows_is_filled_in_by_own_text() -> None:
    current = Budget({"mood": 100}, {"facts": 20, "own text": 10})
    lost = {"facts": Need("kept"), "task": Need("forgotten", 0.2)}
    assert _with_free(current, lost)["own text"] == Need("forgotten", 0.2)
    kept = {"facts": Need("forgotten", 0.2), "task": Need("kept")}
    assert _with_free(current, kept)["own text"] == Need("kept")  # facts has rows of its own


def test_bases_that_were_read_otherwise_once_are_asked_anew_and_no_others(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "bare", "llama", bos=True, template=False)
    tiny_models.save(tmp_path / "ends", "llama")
    bases = "nano}, bare: {model: bare}, ends: {model: ends}}"
    ws = workspace(tmp_path, SPEC.replace("nano}}", bases))
    told = {"base", "form", "engine", "asked", "license"}
    assert set(decided_by(ws, "nano", 12)) == told
    assert decided_by(ws, "bare", 12)["led"] == [0]  # <s>, which no template writes
    assert decided_by(ws, "ends", 12)["end"] == "<|end|>"  # of an answer, but not of generation
