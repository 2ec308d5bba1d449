"""Own right answers all the way: chosen, trained, mended, shown, and found again by their rows.

Of 8 rows of its own and those of a free dataset, each has half of the word that the base says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import Workspace
from pipeline.ingest import resolve
from pipeline.mend import MendReport
from pipeline.selection.judge.own_right import OWN, own_right
from pipeline.selection.judge.readings import Readings
from pipeline.selection.selection import read_selection, training_rows
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.versions.read import VersionReader
from registry.store.kinds import SelectionMeta
from tests.support.called import forked
from tests.support.chat_rows import chat, write
from tests.support.loaded import with_models

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[4] / "examples" / "quickstart" / "data" / "jobs"
ROWS, OF_ITS_OWN = 24, 8
SPEC = """
bases: {nano: {model: nano}}
datasets:
  jobs:
    path: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
    columns: {input: input, output: output}
  free: {path: {train: free.jsonl}}
capabilities:
  jobs: {data: jobs, answer: contains, goal: 0.9, max_new_tokens: 8}
train:
  {base: nano, pool: [jobs, free], budget_rows: 24, replay: 0, own_answers: 4, epochs: 1,
   min_steps: 1}
mend: {rounds: 1}
"""


@dataclass
class Mended:
    """What came of it; nothing closes the gap, so that a round of mending is run."""

    root: Path
    told: dict[str, Any]  # by `gapmend select --json`
    words: dict[str, str]  # question -> the whole word
    adapter: str
    mended: MendReport


@pytest.fixture(scope="module")
def mended(tmp_path_factory) -> Mended:
    root = tmp_path_factory.mktemp("loop")
    read = [json.loads(line) for line in (DATA / "train.jsonl").read_text("utf-8").splitlines()]
    halves = [{**row, "output": row["output"][2:]} for row in read[:56]]
    write(root / "train.jsonl", halves[:OF_ITS_OWN])
    write(root / "free.jsonl", [chat(row) for row in halves[OF_ITS_OWN:]])
    for split in ("dev", "test"):
        lines = (DATA / f"{split}.jsonl").read_text("utf-8").splitlines()[:24]
        write(root / f"{split}.jsonl", [json.loads(one) | {"output": "unsaid"} for one in lines])
    (root / "gapmend.yaml").write_text(SPEC, "utf-8")
    told = forked("select", "-C", root, "--json", loaded=with_models).json()
    ws = Workspace.open(root)
    adapter = ws.train().adapter_id
    return Mended(root, told, {row["input"]: row["output"] for row in read}, adapter, ws.mend())


def test_rows_of_a_free_dataset_are_chosen_and_answered_by_the_base(mended) -> None:
    counts = mended.told["own_answers"]["jobs"]
    assert sum(counts.values()) == mended.told["rows"] > OF_ITS_OWN
    ws = resolve(OpenWorkspace.open(mended.root), Ui(as_json=True))
    picks = {one.row_uid: one for one in read_selection(ws.store, mended.told["selection_id"])}
    rows: Any = training_rows(ws, mended.told["selection_id"])
    own = {row.uid: row for row in rows if picks[row.uid].answer is not None}
    assert len(own) == counts[OWN] > ROWS / 2
    for row in own.values():
        asked, said = (turn["content"] for turn in row.messages)
        assert said == picks[row.uid].answer == mended.words[asked]
    assert {picks[uid].reason for uid in own} == {"gap"}
    free = [row for row in own.values() if row.where.startswith("free.jsonl")]
    assert len(free) >= (mended.told["rows"] - OF_ITS_OWN) / 2


def test_a_round_of_mending_has_them_too(mended) -> None:
    ws = OpenWorkspace.open(mended.root)
    metas = {one.id: one.meta for one in ws.catalog.committed(SelectionMeta)}
    assert sorted(one.round for one in metas.values()) == [0, 1]
    (later,) = (one for one, meta in metas.items() if meta.round == 1)
    first = {r.row_uid: r.answer for r in read_selection(ws.store, mended.told["selection_id"])}
    then = {row.row_uid: row.answer for row in read_selection(ws.store, later)}
    assert len(then) > len(first)
    assert first.items() <= then.items()  # the same answers, drawn no second time
    assert sum(metas[later].own_answers["jobs"].values()) == len(then)
    assert len(mended.mended.rounds) == 2


def test_the_adapter_and_its_rows_say_where_they_are_from(mended) -> None:
    shown = forked("adapter", "show", mended.adapter, "-C", mended.root, "--json").json()
    taught = {(one["dataset"], one["reason"]): one["rows"] for one in shown["taught"]}
    assert taught.keys() == {("jobs", "gap"), ("free", "gap")}
    assert sum(taught.values()) == mended.told["rows"]
    nodes = Workspace.open(mended.root).lineage(mended.adapter)
    assert mended.told["selection_id"] in {node.id for node in nodes.nodes}
    asked = f"SELECT row_uid, dataset FROM rows_of('{mended.adapter}') ORDER BY row_uid"
    rows = forked("sql", asked, "-C", mended.root, "--json").json()
    assert len(rows) == mended.told["rows"]
    uid = next(row["row_uid"] for row in rows if row["dataset"] == "free")
    found = Workspace.open(mended.root).row_lineage(uid)
    assert mended.told["selection_id"] in {pick.selection_id for pick in found.picks}
    assert mended.adapter in {node.id for node in found.made}


@pytest.mark.parametrize("answer", ["choice", "perplexity"])
def test_what_is_not_generated_draws_nothing(mended, answer, monkeypatch) -> None:
    monkeypatch.setattr(Readings, "first_right", None)
    spec = mended.root / "gapmend.yaml"
    spec.write_text(SPEC.replace("contains", answer), "utf-8")
    try:
        ws = resolve(OpenWorkspace.open(mended.root), Ui(as_json=True))
    finally:
        spec.write_text(SPEC, "utf-8")
    rows = list(VersionReader(ws.store, ws.versions["jobs"], "jobs").by_hash({"train"}, "x", ROWS))
    assert len(rows) == OF_ITS_OWN
    found = own_right(ws, Readings(ws, Ui(as_json=True), "nano"), "jobs", rows, 4)
    assert (found.answers, found.counts) == ({}, {})
