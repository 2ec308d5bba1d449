"""The rate of an earlier gap is that of what it read itself, not of what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.outlook.training import _scored
from pipeline.workspace.store import WorkspaceStore
from registry.catalog.catalog import Catalog
from registry.store.kinds import EvalMeta, GapMeta, Output, RunMeta
from registry.store.objects import ObjectRef, Parent, Store

BEGAN = "2000-01-01T00:00:00+00:00"


@pytest.fixture
def kept(tmp_path: Path) -> WorkspaceStore:
    state = tmp_path / ".gapmend"
    return WorkspaceStore(tmp_path, Store(state), Catalog(state))


def rate(kept: WorkspaceStore, read: list[tuple[int | None, float | None]]) -> float | None:
    """Return the rate of a gap over evaluations that read so many tokens in so many seconds."""
    made: list[ObjectRef] = []
    for number, (tokens, seconds) in enumerate(read):
        meta = EvalMeta(
            subject="s", split="dev", arm="zero_shot", n=100, mean=0.5, low=0.4, high=0.6,
            prompt_tokens_mean=50, base="nano", read_tokens=tokens, read_seconds=seconds,
        )  # fmt: skip
        made.append(kept.store.put("eval", None, identity={"n": number}, meta=meta))
    gap = kept.store.put(
        "gap",
        None,
        identity={"n": 0},
        parents=[Parent(one.id, "eval") for one in made],
        meta=GapMeta(base="nano", findings=()),
    )
    kept.catalog.commit([*made, gap])
    run = RunMeta(
        stage="gap", key="k", status="done", started_at=BEGAN, ended_at=BEGAN, seconds=3.0,
        code_version=1, inputs={}, result={}, outputs=(Output(role="gap", kind="gap", id=gap.id),),
    )  # fmt: skip
    return _scored(cast("Any", kept), run)


def test_answers_of_a_journal_say_nothing_of_a_rate(kept: WorkspaceStore) -> None:
    # Of 5,000 tokens a killed run had read 4,000: those took this one no time.
    assert rate(kept, [(1000, 2.0), (0, 0.1)]) == pytest.approx(500)


def test_a_moment_of_reading_is_no_rate(kept: WorkspaceStore) -> None:
    assert rate(kept, [(900, 0.9), (None, 5.0)]) is None
