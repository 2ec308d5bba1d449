"""kill -9 in the middle of an evaluation: the next one asks only what was not answered."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from evals.engine.journal import FOLDER, Journal
from registry.catalog.catalog import Catalog
from registry.store.objects import Store
from registry.upkeep.fsck import fsck
from tests.integration.evals.scoring import evaluate_program
from tests.support import tiny_models
from tests.support.loaded import with_models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.save(folder / "base", "llama")
    return folder


def kill_after(root: Path, store: Path, kind: str, answers: int) -> int:
    """Start the program, kill it when so many answers are on disk; how many there are then."""
    arguments = [evaluate_program.__file__, str(root), str(store), kind]
    process = with_models.start(arguments, stdout=1, stderr=2)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        files = list((store / FOLDER).glob("*.jsonl"))
        if files and files[0].read_bytes().count(b"\n") >= answers:
            break
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    (journal,) = (store / FOLDER).glob("*.jsonl")
    return Journal(journal).known


@pytest.mark.parametrize("kind", ["choice", "exact"])
def test_a_killed_evaluation_goes_on_at_the_item(root: Path, tmp_path: Path, kind: str) -> None:
    whole, read = evaluate_program.run(root, tmp_path / "whole", kind)
    requests = evaluate_program.ITEMS * (4 if kind == "choice" else 1)
    store = tmp_path / "killed"
    known = kill_after(root, store, kind, requests // 3)
    assert requests // 3 <= known < requests

    again, rest = evaluate_program.run(root, store, kind)
    assert again.id == whole.id
    assert [sample.answer for sample in again.samples] == [s.answer for s in whole.samples]
    for ours, theirs in zip(again.samples, whole.samples, strict=True):
        if ours.loglikelihoods is not None:
            assert ours.loglikelihoods == pytest.approx(theirs.loglikelihoods, abs=1e-4)
    # What was answered is not read again; batches fall otherwise, hence not exactly.
    assert rest < read * (1 - known / requests) * 1.2
    assert not list((store / FOLDER).glob("*")), "the journal is of no use any more"
    assert fsck(Store(store), Catalog(store)).clean
