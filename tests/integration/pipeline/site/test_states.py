"""Workspaces that have nothing, something that failed, was killed, erased, or is being written."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from pipeline.site import site as sites
from pipeline.site.views import overview
from pipeline.training.record.metrics import MetricsFile, StepMetrics
from pipeline.workspace.progress_file import PROGRESS, Counted, Told
from pipeline.workspace.store import WorkspaceStore
from registry.errors import UserError
from registry.store.locks import catalog_lock
from registry.upkeep.erase import erase, erasing
from tests.integration.pipeline.site.conftest import Ask
from tests.support.shown_store import SPEC, Shown, Sizes, make

FOLDER = "train-0123456789abcdef"


def test_a_workspace_without_runs_says_what_to_do(tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "gapmend.yaml").write_text(SPEC)
    page = ask(tmp_path)
    assert "gapmend run" in page.get("/").text
    for path in (
        "/runs",
        "/adapters",
        "/items",
        "/data",
        "/sql",
        "/chat",
        "/running",
        "/alias/champion",
    ):
        assert page.get(path).status_code == 200, path
    assert page.get("/adapter/champion").status_code == 404


def test_no_workspace_is_one_line(tmp_path: Path, ask: Ask) -> None:
    with pytest.raises(UserError, match=r"no gapmend\.yaml here"):
        ask(tmp_path)


def test_a_failed_run_says_why(made: Shown, ask: Ask) -> None:
    text = ask(made.root).get(f"/thing/{made.failed}").text
    assert "This run failed: RuntimeError" in text


def training(root: Path, pid: int, began: float) -> None:
    """Leave the folder of a training, as a process leaves it while it runs."""
    folder = root / ".gapmend" / "work" / FOLDER
    folder.mkdir(parents=True)
    doing = Counted("train · nano", 3, 9, 0, time.time() - 6, "loss 0.5")
    told = Told(
        "train", "talk", "r" * 64, platform.node(), pid, began, time.time() - 9, doing=doing
    )
    (folder / PROGRESS).write_text(json.dumps(asdict(told)))
    file = MetricsFile(folder / "metrics.jsonl")
    for step in (1, 2, 3):
        file.append(StepMetrics(step, 9, 0, 2.0 / step, 0.1, 1.0, 100, 50, 2.0))


def test_a_training_that_runs_is_shown_with_its_curve(own: Shown, ask: Ask) -> None:
    me = psutil.Process()
    training(own.root, me.pid, me.create_time())
    page = ask(own.root)
    text = page.get("/running").text
    assert "3 of 9" in text
    assert "left" in text
    assert '<progress max="9" value="3"' in text
    assert f'src="/running/{FOLDER}/loss.svg?step=3"' in text
    assert page.get(f"/running/{FOLDER}/loss.svg?step=3").status_code == 200
    fragment = page.get("/running/now").text
    assert "<html" not in fragment
    assert "3 of 9" in fragment
    assert "Running now" in page.get("/").text


def test_a_training_that_was_killed_is_said_to_be(own: Shown, ask: Ask) -> None:
    training(own.root, os.getpid(), 1.0)  # of a process that had this number before
    text = ask(own.root).get("/running").text
    assert "stopped" in text
    assert "goes on from its folder" in text


def test_another_process_that_holds_the_catalog_is_a_page(
    own: Shown, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites, "_WAIT_S", 0.2)
    page = ask(own.root)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with catalog_lock(own.root / ".gapmend", 5):
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    answer = page.get("/")
    done.set()
    holder.join()
    assert answer.status_code == 503
    assert "has held the catalog for more than" in answer.text
    assert page.get("/").status_code == 200


def test_who_looks_is_not_held_up_once_it_is_in_memory(own: Shown, ask: Ask) -> None:
    page = ask(own.root)
    page.get("/")
    with catalog_lock(own.root / ".gapmend", 5):
        assert page.get("/adapters").status_code == 200


def test_what_another_process_commits_is_shown(own: Shown, ask: Ask) -> None:
    page = ask(own.root)
    assert "newcomer" not in page.get("/").text
    other = WorkspaceStore.open(own.root)
    other.catalog.move_alias(other.store, "newcomer", own.adapters[0])
    assert "newcomer" in page.get("/").text


def test_an_answer_of_2_mb_is_a_page(tmp_path: Path, ask: Ask) -> None:
    said = f"<b>{'word ' * 400_000}the end"
    own = make(tmp_path / "ws", Sizes(chains=1, items=5, few=5, wrong=said))
    page, (adapter,) = ask(own.root), own.adapters
    listed = page.get(f"/items?of={adapter}&way=wrong").text
    assert len(listed) < 60_000
    assert "(2,000,010 characters)" in listed
    after = own.evals[adapter, "moods"]
    text = page.get(f"/item?after={after}&row=2&near=1").text
    assert "the end</pre>" in text  # one item is whole
    assert "<b>" not in text
    assert page.get(f"/items?of={adapter}&text=the end").status_code == 200
    assert len(page.get(f"/adapter/{adapter}").text) < 300_000


def test_erased_rows_are_marked_and_gone(own: Shown, ask: Ask) -> None:
    page = ask(own.root)
    assert "question 3" in page.get("/row/3").text
    ws = WorkspaceStore.open(own.root)
    with erasing(ws.store.root):
        erase(ws.store, ws.catalog, {3}, reason="asked to", advance=lambda _: None)
    data = page.get("/data").text
    assert "asked to" in data
    assert own.adapters[0][:12] in data  # can't be trained again
    row = page.get("/row/3")
    assert row.status_code in (200, 404)
    assert "question 3" not in row.text
    version = page.get(f"/data/{own.versions[1]}").text
    assert "1 rows were erased from it." in version or "1 row was erased from it." in version
    assert "question 3 " not in version
    assert "erased" in page.get(f"/selection/{own.selections[0]}").text


def test_a_fault_of_ours_is_a_page_and_a_file(
    own: Shown, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("<b>never</b>")

    monkeypatch.setattr(overview, "_lead", broken)
    answer = ask(own.root).get("/")
    assert answer.status_code == 500
    assert "a fault of ours: ZeroDivisionError: &lt;b&gt;never" in answer.text
    assert "Traceback" in (own.root / ".gapmend" / "fault.log").read_text()
    assert "Traceback" not in answer.text


def test_a_damaged_file_is_named(own: Shown, ask: Ask) -> None:
    name = own.evals[own.adapters[-1], "moods"]
    file = own.root / ".gapmend" / "objects" / "eval" / name / "samples.parquet"
    file.write_bytes(file.read_bytes()[:-3] + b"xyz")
    answer = ask(own.root).get(f"/items?of={own.adapters[-1]}")
    assert answer.status_code == 500
    assert "samples.parquet" in answer.text
    assert "gapmend fsck" in answer.text


def test_a_question_that_takes_too_long_is_stopped(made: Shown) -> None:
    catalog = WorkspaceStore.open(made.root).catalog
    endless = "select count(*) from range(1000000000000) a, range(1000000) b"
    with pytest.raises(UserError, match=r"stopped after 0\.3 s"):
        catalog.sql(endless, within_s=0.3)
    assert catalog.sql("select 1", within_s=30).rows == [(1,)]


def test_a_third_question_is_told_so_after_a_while(
    made: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    from pipeline.site.app import app
    from pipeline.site.guard import Access

    monkeypatch.setattr(sites, "_PATIENT_S", 0.2)
    access = sites.Site.of(made.root, Access.to("127.0.0.1", 8642))
    for _ in range(2):
        assert access.questions.acquire(blocking=False)
    page = TestClient(app(access), base_url="http://127.0.0.1:8642")
    assert "two other questions are being answered" in page.get("/sql?q=select 1").text
    access.questions.release()
    assert "1 row." in page.get("/sql?q=select 1").text
