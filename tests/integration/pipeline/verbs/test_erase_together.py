"""An erasure and a stage at the same time: never both, whichever begins first, and at any moment.

The stage does what training does: it reads a row, takes its time and puts what it has learned.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.verbs import erase as erase_verb
from pipeline.verbs.erase import erase
from pipeline.workspace.stage import StageContext, StageOutput, run_stage
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from registry.catalog.catalog import Catalog
from registry.datasets.versions.read import VersionReader
from registry.errors import UserError
from registry.store.objects import Store
from registry.upkeep.erase import erase as erase_rows
from tests.support.care_store import CANARY, ERASED_UID, make
from tests.support.decode import find

UI = Ui(as_json=True)
TAKES_S = 0.15


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make(root / ".gapmend")
    return root


@pytest.fixture
def ws(tmp_path: Path, original: Path) -> WorkspaceStore:
    root = Path(shutil.copytree(original, tmp_path / "ws"))
    return WorkspaceStore(root, Store(root / ".gapmend"), Catalog(root / ".gapmend"))


def learn(ws: WorkspaceStore, at: Callable[[str], None] = lambda _: None) -> None:
    """Run a stage that reads the row, and tell `at` where it is."""
    version = ws.catalog.committed("dataset_version")[-1].id

    def work(_: StageContext) -> StageOutput:
        at("begun")
        rows = VersionReader(ws.store, version).rows({ERASED_UID})
        at("read")
        with ws.store.draft() as draft:
            (draft / "learned.txt").write_text(" ".join(row.messages[0].content for row in rows))
            time.sleep(TAKES_S)
            made = ws.store.put("adapter", draft, identity={"rows": len(rows)}, meta={"base": "b"})
        at("put")
        return StageOutput({}, [("adapter", made)])

    run_stage(ws, UI, "learn", {"name": version}, work, version=1)


def again(ws: WorkspaceStore) -> WorkspaceStore:
    """Return the workspace as another process opens it."""
    return WorkspaceStore(ws.root, Store(ws.state), Catalog(ws.state))


def erase_it(ws: WorkspaceStore) -> None:
    erase(again(ws), UI, None, (ERASED_UID,), reason="", do=True)


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.soak)])
def test_a_stage_that_begins_at_any_moment_of_an_erasure_waits(
    ws, monkeypatch, original, every: int
) -> None:
    steps = sum(1 for _ in ws.store.folders())
    real = erase_rows
    for offset in range(0, steps + 1, every):
        shutil.rmtree(ws.root)
        shutil.copytree(original, ws.root)
        stage = threading.Thread(target=learn, args=(again(ws),))
        seen = 0

        def step(n: int, stage=stage, offset=offset) -> None:
            nonlocal seen
            if seen <= offset < seen + n or (n == 0 and offset == seen):
                stage.start()
                time.sleep(TAKES_S / 3)  # it has read by now, if it may
            seen += n

        def slowly(*given, step=step, real=real, **named):
            named["advance"] = step
            done = real(*given, **named)
            step(0)
            return done

        monkeypatch.setattr(erase_verb, "erase_rows", slowly)
        erase_it(ws)
        if not stage.ident:
            stage.start()
        stage.join()
        assert ws.catalog.find("run", stage="learn") is not None
        assert find(ws.state, CANARY) == set(), offset


def test_an_erasure_at_any_moment_of_a_stage_is_refused(ws) -> None:
    said: dict[str, str] = {}

    def at(now: str) -> None:
        with pytest.raises(UserError) as refused:
            erase_it(ws)
        said[now] = str(refused.value)

    learn(ws, at)
    assert [*said] == ["begun", "read", "put"]
    assert all("stage is running and may write what it has" in line for line in said.values())
    assert all(": learn-" in line for line in said.values())
    looked = erase(ws, UI, None, (ERASED_UID,), reason="", do=False)
    assert looked.reach.of("dataset_version")
    erase_it(ws)  # now it may


def test_a_stage_tells_that_rows_are_being_erased(ws, monkeypatch) -> None:
    hurried = WorkspaceStore(ws.root, ws.store, Catalog(ws.state, wait_s=0.1))

    def meanwhile(*_: object, **__: object) -> None:
        learn(hurried)

    monkeypatch.setattr(erase_verb, "erase_rows", meanwhile)
    with pytest.raises(UserError, match=r"rows\.lock: rows have been erased.*Wait for it to end"):
        erase_it(ws)
