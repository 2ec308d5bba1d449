"""Rows held out of a run, the probe that is asked on the way, and what overlaps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest import resolve
from pipeline.select import select
from pipeline.selection.selection import read_selection
from pipeline.selection.validation import held_out, questions, training_set
from pipeline.spec.train import ValidationSpec
from pipeline.train import train
from pipeline.training.record.probe import share_right
from pipeline.workspace.resolved import Resolved
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.errors import UserError
from tests.integration.pipeline.test_select_to_merge import make_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> OpenWorkspace:
    return make_workspace(tmp_path_factory.mktemp("validation"))


@pytest.fixture(scope="module")
def selection(ws: OpenWorkspace) -> str:
    return select(ws, Ui()).selection_id


def watched(ws: OpenWorkspace, **settings: object) -> Resolved:
    validation = ValidationSpec.model_validate(settings)
    changed = ws.spec.train.model_copy(update={"validation": validation, "batch_tokens": 256})
    return resolve(ws.with_spec(ws.spec.model_copy(update={"train": changed})), Ui())


@given(
    st.lists(st.sampled_from([f"{n:02}" for n in range(40)]), min_size=2, unique=False),
    st.floats(0.01, 0.5),
    st.integers(0, 5),
)
def test_equal_rows_are_held_out_together(hashes: list[str], share: float, seed: int) -> None:
    held = held_out(hashes, share=share, seed=seed)
    assert held == held_out(hashes[::-1], share=share, seed=seed)
    assert held < set(hashes) or len(set(hashes)) == 1
    assert len(held) >= min(1, len(set(hashes)) - 1)


def test_a_share_is_held_out(ws: OpenWorkspace, selection: str) -> None:
    found = training_set(watched(ws, share=0.2), Ui(), selection)
    assert found.watch is not None
    uids = {row.uid for row in found.rows}, {row.uid for row in found.watch.rows}
    selected = read_selection(ws.store, selection)
    assert uids[0] | uids[1] == {row.row_uid for row in selected}
    hashes = {row.row_uid: row.row_hash for row in selected}
    assert not {hashes[uid] for uid in uids[0]} & {hashes[uid] for uid in uids[1]}
    assert len(uids[1]) >= 12


def test_a_dataset_of_its_own_and_one_that_overlaps(ws: OpenWorkspace, selection: str) -> None:
    found = training_set(watched(ws, data="colour"), Ui(), selection)
    assert found.watch is not None
    assert len(found.rows) == 60
    assert found.watch.rows[0].messages[0]["content"].startswith("Colour? ")
    lines = (ws.root / "mood-train.jsonl").read_text()
    (ws.root / "again-dev.jsonl").write_text(lines)
    (ws.root / "again-train.jsonl").write_text(
        (ws.root / "colour-train.jsonl").read_text().replace("box", "crate")
    )
    spec = ws.spec.datasets["mood"].model_copy(
        update={"path": {"train": "again-train.jsonl", "dev": "again-dev.jsonl"}}
    )
    both = ws.with_spec(
        ws.spec.model_copy(update={"datasets": {**ws.spec.datasets, "again": spec}})
    )
    with pytest.raises(UserError, match=r"trained on too, the first is .*again-dev.jsonl:\d"):
        training_set(watched(both, data="again"), Ui(), selection)
    with pytest.raises(UserError, match="no dataset 'other'"):
        training_set(watched(ws, data="other"), Ui(), selection)


def test_the_probe_asks_what_the_engine_would(ws: OpenWorkspace) -> None:
    """Shares of the right choice, as transformers' own loss has it, choice by choice."""
    asked = questions(resolve(ws, Ui()), Ui(), 10)
    assert len(asked) == 10
    loaded = ws.models.get("tiny")
    from pipeline.training.examples.encode import encode_rows

    right = 0
    for question in asked:
        scores = []
        for row in encode_rows(loaded, question.choices, allow_rejects=0).rows:
            ids = torch.from_numpy(row.input_ids).long()[None]
            labels = torch.from_numpy(row.labels).long()[None]
            with torch.no_grad():
                loss = loaded.model(input_ids=ids, labels=labels).loss
            scores.append(-float(loss) * row.trained_tokens)
        right += scores.index(max(scores)) == question.right
    assert share_right(loaded.model, loaded, asked) == pytest.approx(right / 10)


def test_a_run_is_watched_from_the_spec(ws: OpenWorkspace, selection: str) -> None:
    report = train(watched(ws, share=0.2, every=2, probe_items=4), Ui(), selection)
    assert report.kept_step is not None
    assert report.kept_step % 2 == 0 or report.kept_step == report.steps
    plain = train(ws, Ui(), selection)
    assert plain.kept_step is None
    assert plain.adapter_id != report.adapter_id
