"""Rows that a dataset of another name had first are asked by the prompt all the same."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline import Workspace
from pipeline.ingest import resolve
from pipeline.select import select
from pipeline.selection.selection import training_rows
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace

STARTER = Path(__file__).resolve().parents[4] / "pipeline" / "workspace" / "starter"


def asked(root: Path) -> list[str]:
    ws = resolve(OpenWorkspace.open(root), Ui(as_json=True))
    rows = training_rows(ws, select(ws, Ui(as_json=True)).selection_id)
    return [row.messages[0]["content"] for row in rows]


def test_a_dataset_that_is_renamed_is_trained_on_as_it_is_measured(tmp_path: Path) -> None:
    root = Path(shutil.copytree(STARTER, tmp_path / "ws"))
    spec = root / "gapmend.yaml"
    text = spec.read_text("utf-8").replace("goal: 0.90", "goal: 0.90\n    limit: 40")
    spec.write_text(text.replace("budget_rows: 300", "budget_rows: 20"), "utf-8")
    Workspace.open(root).run(until="select")
    first = asked(root)
    assert len(first) == 20
    assert all(question.startswith("Which team answers this?\n") for question in first)
    spec.write_text(
        spec.read_text("utf-8")
        .replace("tickets:", "mail:")
        .replace("data: tickets", "data: mail")
        .replace("pool: [tickets]", "pool: [mail]"),
        "utf-8",
    )
    assert asked(root) == first
