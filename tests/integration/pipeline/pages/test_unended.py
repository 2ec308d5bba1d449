"""A workspace where something failed or was stopped: each is a line, and the page is made."""

from __future__ import annotations

import json
import platform
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.pages.account import account
from pipeline.pages.unended import unended
from pipeline.workspace.progress_file import PROGRESS, Counted, Told
from pipeline.workspace.stage import StageContext, StageOutput, run_stage
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from registry.catalog.catalog import Catalog
from registry.errors import UserError
from registry.store.objects import Store


@pytest.fixture
def kept(tmp_path: Path) -> WorkspaceStore:
    state = tmp_path / ".gapmend"
    return WorkspaceStore(tmp_path, Store(state), Catalog(state))


def fails(_: StageContext) -> NoReturn:
    raise RuntimeError("out of\nmemory")


def test_a_failed_run_is_a_line_until_the_stage_has_a_result(kept: WorkspaceStore) -> None:
    with pytest.raises(RuntimeError):
        run_stage(kept, Ui(), "gap", {"n": 1}, fails, version=1)
    (one,) = unended(kept)
    assert re.fullmatch(r"gap failed on [\d-]+ [\d:]+: RuntimeError: out of memory\.", one.said)
    with pytest.raises(UserError, match="nothing was measured here yet: gap failed on"):
        account(kept)
    run_stage(kept, Ui(), "gap", {"n": 2}, lambda _: StageOutput({}), version=1)
    assert unended(kept) == ()


def test_a_killed_training_is_a_line(kept: WorkspaceStore) -> None:
    folder = kept.state / "work" / "train-0123456789abcdef"
    folder.mkdir(parents=True)
    began = 1_700_000_000.0
    doing = Counted("train · nano", 120, 383, 0, time.time(), "")
    told = Told("train", None, "r" * 64, platform.node(), 2**22 + 1, began, began, doing=doing)
    (folder / PROGRESS).write_text(json.dumps(asdict(told)))
    (one,) = unended(kept)
    assert (one.stage, one.state) == ("train", "stopped")
    assert one.said.startswith("train, begun on 2023-11-14 22:13, was stopped at 120 of 383: ")


def test_nothing_was_begun(kept: WorkspaceStore) -> None:
    with pytest.raises(UserError, match="nothing was measured here yet"):
        account(kept)
