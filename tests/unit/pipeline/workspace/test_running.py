"""What runs is read from files: a live process, one that is gone, another host, a broken file."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from pipeline.workspace.bars import Bar
from pipeline.workspace.progress_file import PROGRESS, Counted, Told, told_of
from pipeline.workspace.running import Running, running
from pipeline.workspace.store import WorkspaceStore
from registry.catalog.catalog import Catalog
from registry.store.objects import Store

NAME = "train-0123456789abcdef"


@pytest.fixture
def kept(tmp_path: Path) -> WorkspaceStore:
    state = tmp_path / ".gapmend"
    return WorkspaceStore(tmp_path, Store(state), Catalog(state))


def folder(kept: WorkspaceStore, name: str = NAME) -> Path:
    made = kept.state / "work" / name
    made.mkdir(parents=True, exist_ok=True)
    return made


def here() -> Told:
    me = psutil.Process()
    began = time.time() - 60
    return Told("train", None, "r" * 64, platform.node(), me.pid, me.create_time(), began)


def told(kept: WorkspaceStore, what: Told, name: str = NAME) -> Running:
    (folder(kept, name) / PROGRESS).write_text(json.dumps(asdict(what)))
    return next(one for one in running(kept) if one.workdir.name == name)


def test_nothing_runs_where_nothing_ever_did(kept: WorkspaceStore) -> None:
    assert running(kept) == ()
    folder(kept)
    assert running(kept) == ()
    assert not (kept.state / "catalog.duckdb").exists()


def test_a_running_one_says_how_far_it_is(kept: WorkspaceStore) -> None:
    counted = Counted("train · nano", 30, 100, 10, time.time() - 20, "loss 0.5")
    one = told(kept, replace(here(), doing=counted))
    assert (one.state, one.why, one.pid) == ("running", "", os.getpid())
    assert (one.doing, one.done, one.total, one.note) == ("train · nano", 30, 100, "loss 0.5")
    assert one.seconds_left is not None
    assert 69 < one.seconds_left < 350  # 20 in 20 s, and a busy machine may look later


def test_one_whose_process_is_gone_is_stopped(kept: WorkspaceStore) -> None:
    one = told(kept, replace(here(), process_began=here().process_began - 3600))
    assert one.state == "stopped"
    assert one.why == (
        f"process {os.getpid()} is gone, killed or with its machine; the next run with the same "
        "inputs goes on from its folder"
    )
    assert one.seconds_left is None


def test_one_on_another_host_is_not_known(kept: WorkspaceStore) -> None:
    one = told(kept, replace(here(), host="elsewhere"))
    assert (one.state, one.host) == ("not known", "elsewhere")
    assert "begun on elsewhere" in one.why


@pytest.mark.parametrize("text", ["", '{"stage": "train", "ab', "[]", "\udcff", "{}"])
def test_a_broken_file_is_one_line(kept: WorkspaceStore, text: str) -> None:
    (folder(kept) / PROGRESS).write_bytes(text.encode("utf-8", "surrogateescape"))
    (one,) = running(kept)
    assert (one.stage, one.state) == ("train", "not known")
    assert one.why == f"work/{NAME}/progress.json can't be read; the next run writes it anew"


def test_those_that_run_come_first(kept: WorkspaceStore) -> None:
    told(kept, replace(here(), interrupted=True), "a-1")
    told(kept, replace(here(), host="elsewhere"), "b-2")
    told(kept, here(), "c-3")
    assert [one.state for one in running(kept)] == ["running", "not known", "stopped"]


def test_a_file_is_there_while_a_stage_is(kept: WorkspaceStore) -> None:
    with told_of(folder(kept), "train", "tickets", "r") as file:
        (one,) = running(kept)
        assert (one.stage, one.about, one.doing) == ("train", "tickets", None)
        bar = Bar("train · nano", total=3)
        bar.advance(2)
        with file.telling(bar) as tell:
            tell()
            before = (folder(kept) / PROGRESS).stat().st_mtime_ns
            tell()  # nothing has changed
            assert (folder(kept) / PROGRESS).stat().st_mtime_ns == before
            (one,) = running(kept)
            assert (one.doing, one.done, one.total) == ("train · nano", 2, 3)
            with file.telling(Bar("validation")) as tell_inner:
                tell_inner()
                tell()  # what is inside is what is told
                assert running(kept)[0].doing == "validation"
            tell()
            assert running(kept)[0].doing == "train · nano"
        assert running(kept)[0].doing is None
    assert running(kept) == ()
    assert list(folder(kept).iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "left"), [(ValueError, []), (KeyboardInterrupt, ["stopped"])], ids=str
)
def test_a_stage_that_ends_otherwise(
    kept: WorkspaceStore, raised: type[BaseException], left: list[str]
) -> None:
    with pytest.raises(raised), told_of(folder(kept), "gap", None, "r"):
        raise raised
    assert [one.state for one in running(kept)] == left
