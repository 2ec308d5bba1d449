"""Leaks between what is trained on and what is measured by: found, excluded, and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from pipeline.ingest import resolve
from pipeline.selection.candidates import Candidates
from pipeline.selection.selection import SelectedRow, put_selection
from pipeline.train import train
from pipeline.verbs.leaks import LeaksReport, leaks
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError
from registry.store.kinds import SelectionMeta
from registry.store.objects import Parent
from tests.support import tiny_models
from tests.support.plain_rows import load_rows

SPEC = """
bases: {tiny: {model: base}}
datasets:
  bank:
    path: {train: bank.csv, dev: bank-dev.csv, test: bank-test.csv}
    columns: {input: text, output: label}
%s
capabilities: {intent: {data: bank, answer: exact, goal: 0.9}}
%s
train: {base: tiny, rank: 4, batch_tokens: 256, min_steps: 1}
"""
MORE = """
  other:
    path: {train: other.csv, test: other-test.csv}
    columns: {input: text, output: label}
"""
TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "Read and answer. {{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
CARD = "my new card from the bank by the river has not come to my house yet"
FEE = "why was a fee of two pounds taken for the transfer that i sent last friday"
TRIP = "can i take money out in japan and what does that cost me for each day there"
LONG = "the passage says that the old lighthouse keeper counted every ship which passed by at night"


@pytest.fixture
def ui() -> Ui:
    return Ui(as_json=True)


def write(root: Path, name: str, *texts: str, label: str = "a") -> None:
    with (root / name).open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["text", "label"])
        lines.writerows([text, label] for text in texts)


def workspace(root: Path, *, more: str = "", guards: str = "") -> OpenWorkspace:
    (root / "gapmend.yaml").write_text(SPEC % (more, guards))
    return OpenWorkspace.open(root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tiny_models.save(tmp_path / "base", "llama")
    filler = [f"question number {n} about thing {n * 7} and nothing else" for n in range(30)]
    write(tmp_path, "bank.csv", CARD, FEE, TRIP, *filler)
    write(tmp_path, "bank-dev.csv", "is the branch open on sunday morning or only at noon")
    write(tmp_path, "bank-test.csv", "how do i change the address that you have for me")
    return tmp_path


def pairs(report: LeaksReport) -> list[tuple[str, str, int, int, int, bool]]:
    return [
        (p.training, p.held_out, p.exact, p.near_duplicate, p.gram, p.decides) for p in report.pairs
    ]


def chosen(ws: OpenWorkspace, ui: Ui, *texts: str, dataset: str = "bank") -> str:
    """Put and commit a selection of these rows."""
    version = resolve(ws, ui, [dataset]).versions[dataset]
    rows = {row.messages[0].content: row for row in load_rows(ws.store, version)}
    picked = [
        SelectedRow(rows[text].uid, rows[text].row_hash, "intent", "gap", 0.5, rank, None)
        for rank, text in enumerate(texts)
    ]
    made = put_selection(
        ws.store,
        picked,
        [],
        base_digest="b",
        parents=[Parent(version, "dataset")],
        meta=SelectionMeta(base="nano", round=0, rows=len(picked), replay_rows=0, budget={}),
    )
    ws.catalog.commit([made])
    return made.id


def test_each_kind_is_found_between_datasets(root: Path, ui: Ui) -> None:
    write(root, "other.csv", "i am free text that nobody measures")
    write(root, "other-test.csv", CARD, FEE.replace("friday", "monday"), f"oh no, {TRIP[:60]}")
    ws = workspace(root, more=MORE)
    report = leaks(ws, ui)
    assert pairs(report) == [("bank", "other test", 1, 1, 1, True)]
    assert (report.rows, report.items, report.leaking) == (34, 5, 3)
    assert not report.clean
    shown = [(row.kind, row.row, row.item) for row in report.shown]
    assert shown == [
        ("exact", "bank.csv:2", "other-test.csv:2"),
        ("near-duplicate", "bank.csv:3", "other-test.csv:3"),
        ("13-gram", "bank.csv:4", "other-test.csv:4"),
    ]
    assert report.counted(show=False).keys().isdisjoint({"shown"})


def test_a_dataset_that_is_never_trained_on_is_told_and_decides_nothing(root: Path, ui: Ui) -> None:
    write(root, "other.csv", "how do i change the address that you have for me")
    write(root, "other-test.csv", "something of its own that is asked nowhere else")
    report = leaks(workspace(root, more=MORE), ui)
    assert pairs(report) == [("other", "bank test", 1, 0, 0, False)]
    assert report.clean


def test_nothing_leaks_from_clean_data(root: Path, ui: Ui) -> None:
    report = leaks(workspace(root), ui)
    assert (report.rows, report.items, report.pairs, report.clean) == (33, 2, (), True)
    assert report.sets == {"bank dev": 1, "bank test": 1}


def test_documents_of_an_lm_eval_task_are_a_test_set(root: Path, ui: Ui) -> None:
    docs = [
        {"question": "what does the fee of the card cost in the end?", "answer": "two"},
        {"question": FEE, "answer": "because"},
        {"question": "short", "answer": "x", "more": [{"passage": f"{LONG} and on"}]},
    ]
    (root / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (root / "mine.yaml").write_text(TASK % (root / "docs.jsonl"))
    write(root, "bank.csv", CARD, FEE, f"tell me why: {LONG}")
    guard = "guards: {reading: {lm_eval: mine.yaml, allow_code: true}}"
    report = leaks(workspace(root, guards=guard), ui)
    assert pairs(report) == [("bank", "reading (lm-eval)", 0, 1, 1, True)]
    assert [row.item for row in report.shown] == ["document 1", "document 2"]


def test_select_passes_over_what_any_dataset_or_task_measures_by(root: Path, ui: Ui) -> None:
    write(root, "other.csv", "i am free text that nobody measures")
    write(root, "other-test.csv", CARD, TRIP.replace("each day there", "a day"))
    (root / "docs.jsonl").write_text(json.dumps({"question": f"So, {FEE}", "answer": "x"}) + "\n")
    (root / "mine.yaml").write_text(TASK % (root / "docs.jsonl"))
    guard = "guards: {reading: {lm_eval: mine.yaml, allow_code: true}}"
    ws = resolve(workspace(root, more=MORE, guards=guard), ui)
    candidates = Candidates(ws, {"bank": 100})
    left = {row.messages[0].content for row in candidates.rows("bank")}
    assert len(left) == 30
    assert left.isdisjoint({CARD, FEE, TRIP})
    assert {why: n for why, n in candidates.leaks.items() if n} == {"exact": 1, "13-gram": 2}


def test_rows_of_a_selection_and_of_an_adapter(root: Path, ui: Ui) -> None:
    write(root, "other.csv", "i am free text that nobody measures")
    write(root, "other-test.csv", CARD)
    ws = workspace(root, more=MORE)
    clean, leaky = chosen(ws, ui, FEE, TRIP), chosen(ws, ui, FEE, CARD)
    assert leaks(ws, ui, clean[:12]).clean
    found = leaks(ws, ui, leaky)
    assert pairs(found) == [(f"selection {leaky[:12]}", "other test", 1, 0, 0, True)]
    assert found.rows == 2
    parents = [Parent(leaky, "selection")]
    adapter = ws.store.put("adapter", None, identity={"a": 1}, parents=parents)
    ws.catalog.commit([adapter])
    ws.catalog.move_alias(ws.store, "champion", adapter.id)
    of_adapter = leaks(ws, ui, "champion")
    assert pairs(of_adapter) == [(f"adapter {adapter.id[:12]}", "other test", 1, 0, 0, True)]
    with pytest.raises(UserError, match="is a dataset_version; expected a selection or an adapter"):
        leaks(ws, ui, resolve(ws, ui).versions["bank"])


@pytest.mark.parametrize(
    ("text", "how"),
    [(CARD, "is in"), (CARD.replace("yet", "so far"), "is a near-duplicate of a row in")],
)
def test_training_refuses_a_row_of_a_test_set_that_came_in_later(
    root: Path, ui: Ui, text: str, how: str
) -> None:
    selection = chosen(workspace(root), ui, FEE, CARD, TRIP)
    write(root, "other.csv", "i am free text that nobody measures")
    write(root, "other-test.csv", "something else that is asked in the exam alone", text)
    ws = workspace(root, more=MORE)
    line = rf"^bank.csv:2: row \d+ of the selection {how} 'other test' \(other-test.csv:3\); "
    with pytest.raises(UserError, match=line + r".*gapmend select$"):
        train(ws, ui, selection)
    assert not ws.catalog.committed("adapter")


def test_a_selection_that_leaks_nothing_is_trained_on(root: Path, ui: Ui) -> None:
    ws = workspace(root)
    assert train(ws, ui, chosen(ws, ui, FEE, CARD, TRIP)).rows == 3
