"""Nothing of a witness is replayed, and its rows count as no rows that may be trained on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.selection.replay import sources
from pipeline.spec.spec import Spec
from pipeline.verbs.leaks import _may_be_trained_on


def workspace(**replay: bool | None) -> Any:
    """As much of a workspace as this is decided by: a spec with a guard for each name."""
    guards = {n: {"data": n, "answer": "exact", "replay": said} for n, said in replay.items()}
    names = ("rows", "chat", *replay)
    spec = {
        "bases": {"nano": {"model": "nano"}},
        "datasets": {name: {"path": f"{name}.csv"} for name in names},
        "capabilities": {"intent": {"data": "rows", "answer": "exact", "goal": 0.8}},
        "guards": guards,
        "train": {"base": "nano", "pool": ["rows", "chat"]},
    }
    return SimpleNamespace(spec=Spec.model_validate(spec))


def replayed(ws: Any) -> list[str]:
    found: Any = SimpleNamespace(verdict=lambda _: "tune")
    return [source.name for source in sources(ws, found)]


def test_no_row_of_a_witness_is_replayed() -> None:
    assert replayed(workspace(a=None, b=None)) == ["a", "b", "chat"]
    assert replayed(workspace(a=None, b=None, c=None)) == ["a", "b", "chat"]
    assert replayed(workspace(a=False, b=None, c=None)) == ["b", "c", "chat"]
    assert replayed(workspace(a=True, b=True, c=True)) == ["a", "b", "c", "chat"]


def test_rows_of_a_witness_may_not_be_trained_on() -> None:
    assert _may_be_trained_on(workspace(a=None, b=None, c=None)) == {"rows", "chat", "a", "b"}
