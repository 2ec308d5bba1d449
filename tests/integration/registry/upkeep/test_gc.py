"""gc shows what goes, removes just that, and nothing that anything committed needs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.verbs.gc import gc, running
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from registry.catalog.database import connect
from registry.catalog.open import open_catalog
from registry.errors import UserError
from registry.store.kinds import RunMeta
from registry.store.objects import ObjectRef, Store
from registry.upkeep.erase import erasing
from registry.upkeep.fsck import fsck
from registry.upkeep.gc import Waste, find_waste, remove_waste
from tests.support.care_store import eval_meta, make

UI = Ui(as_json=True)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gc") / "ws"
    make(folder / ".gapmend")
    (folder / "gapmend.yaml").write_text("bases: {nano: {model: nano}}\n")
    return folder


@pytest.fixture
def ws(original: Path, tmp_path: Path) -> WorkspaceStore:
    return WorkspaceStore.open(Path(shutil.copytree(original, tmp_path / "ws")))


def orphan(store: Store, number: int = 1, *, old: bool = True) -> ObjectRef:
    with store.draft() as draft:
        (draft / "data.bin").write_bytes(b"x" * 1000)
        ref = store.put("eval", draft, identity={"orphan": number}, meta=eval_meta())
    if old:
        os.utime(ref.path, (1, 1))
    return ref


def found(ws: WorkspaceStore, what: str, *, remove: bool = False) -> list[str]:
    return [one.path for one in gc(ws, UI, remove=remove).found if one.what == what]


def committed(ws: WorkspaceStore) -> set[str]:
    return {row[0] for row in ws.catalog.query("SELECT id FROM objects").rows}


def test_what_was_never_committed_goes_once_it_is_settled(ws: WorkspaceStore) -> None:
    before = committed(ws)
    old, young = orphan(ws.store), orphan(ws.store, 2, old=False)
    place = f"objects/eval/{old.id}"
    assert found(ws, "orphan") == [place]
    assert old.path.is_dir()
    assert found(ws, "orphan", remove=True) == [place]
    assert not old.path.exists()
    assert young.path.is_dir()
    assert committed(ws) == before
    assert [one.problem for one in fsck(ws.store, ws.catalog).findings] == ["orphan"]


def test_an_object_that_is_committed_in_between_stays(ws: WorkspaceStore) -> None:
    ref = orphan(ws.store)
    seen = find_waste(ws.store, ws.catalog, busy=False)
    ws.catalog.commit([ref])
    gone = remove_waste(ws.store, ws.catalog, [one for one in seen if one.what == "orphan"])
    assert gone == []
    assert fsck(ws.store, ws.catalog).findings == ()


def test_all_that_is_committed_stays_and_can_be_read(ws: WorkspaceStore) -> None:
    before = committed(ws)
    files = {path for path in ws.store.objects.rglob("*") if path.is_file()}
    gc(ws, UI, remove=True)
    assert committed(ws) == before
    assert {path for path in ws.store.objects.rglob("*") if path.is_file()} == files
    assert fsck(ws.store, ws.catalog).findings == ()


def test_a_draft_goes_whose_process_has_only_its_number_in_common_with_this_one(
    ws: WorkspaceStore,
) -> None:
    with ws.store.draft() as mine:
        mine_name = mine.name
        host, pid, digits = mine_name.split(".")
        for name in (f"{host}.{pid}.{digits[::-1]}", f"elsewhere.{pid}.{digits}", "other.1.new"):
            (ws.store.drafts / name).mkdir()
        for name in (f"{host}.{pid}.{digits[::-1]}", f"elsewhere.{pid}.{digits}"):
            os.utime(ws.store.drafts / name, (1, 1))
        assert set(found(ws, "draft", remove=True)) == {
            f"tmp/{host}.{pid}.{digits[::-1]}",
            f"tmp/elsewhere.{pid}.{digits}",
        }
        assert {path.name for path in ws.store.drafts.iterdir()} == {mine_name, "other.1.new"}


def test_hashes_of_the_bases_are_kept_and_other_caches_are_not(ws: WorkspaceStore) -> None:
    cache = ws.state / "cache"
    (cache / "embeddings").mkdir(parents=True)
    (cache / "embeddings" / "a.npy").write_bytes(b"x" * 100)
    (cache / "hashes.kept").write_text("{}")
    assert found(ws, "cache", remove=True) == ["cache/embeddings"]
    assert [path.name for path in cache.iterdir()] == ["hashes.kept"]


def test_a_run_s_folder_says_what_becomes_of_the_run(ws: WorkspaceStore) -> None:
    done = ws.catalog.find(RunMeta, stage="train")
    assert done is not None
    for name in (f"train-{done.meta.key[:16]}", "gap-0123456789abcdef"):
        (ws.state / "work" / name).mkdir(parents=True)
    shown = {
        one.path: one.detail for one in gc(ws, UI, remove=False).found if one.what == "workdir"
    }
    assert shown == {
        f"work/train-{done.meta.key[:16]}": "the run is done",
        "work/gap-0123456789abcdef": "of a killed run of gap: it would begin anew",
    }
    gc(ws, UI, remove=True)
    assert not [path for path in (ws.state / "work").iterdir() if path.is_dir()]


def test_what_a_running_stage_may_need_is_kept(ws: WorkspaceStore) -> None:
    from filelock import FileLock

    work, partial = ws.state / "work" / "gap-0123456789abcdef", ws.state / "partial" / "a.jsonl"
    for folder in (work, partial.parent, ws.state / "cache" / "embeddings"):
        folder.mkdir(parents=True)
    partial.write_text(json.dumps(["key", "answer"]) + "\n")
    ref = orphan(ws.store)
    with FileLock(work.with_suffix(".lock")):
        report = gc(ws, UI, remove=True)
    assert report.running == (work.name,)
    assert {one.what for one in report.found} <= {"catalog"}
    assert work.is_dir()
    assert partial.is_file()
    assert ref.path.is_dir()
    assert running(ws.state) == ()
    assert {one.what for one in gc(ws, UI, remove=True).found} >= {
        "workdir",
        "journal",
        "orphan",
    }


def test_the_catalog_is_written_anew_where_it_has_free_blocks(ws: WorkspaceStore) -> None:
    texts = "SELECT md5(random()::VARCHAR) AS text FROM range(40000)"
    with open_catalog(ws.state, wait_s=5, write=True) as connection:
        connection.execute(f"CREATE TABLE catalog.more AS {texts}")
    with open_catalog(ws.state, wait_s=5, write=True) as connection:
        connection.execute(f"DROP TABLE catalog.more; CREATE TABLE catalog.other AS {texts}")
    with connect() as connection:  # the log is written into the file
        connection.execute(f"ATTACH '{ws.state / 'catalog.duckdb'}' AS one; CHECKPOINT one")
    path = ws.state / "catalog.duckdb"
    size, before = path.stat().st_size, committed(ws)
    [one] = [one for one in gc(ws, UI, remove=False).found if one.what == "catalog"]
    assert one.bytes > 0
    gc(ws, UI, remove=True)
    assert path.stat().st_size <= size
    assert not [one for one in gc(ws, UI, remove=False).found if one.what == "catalog"]
    assert committed(ws) == before
    assert fsck(ws.store, ws.catalog).findings == ()


def test_nothing_that_is_gone_is_counted(ws: WorkspaceStore) -> None:
    gone = [Waste("log", "fault.log", 9, ""), Waste("orphan", f"objects/eval/{'0' * 64}", 9, "")]
    assert remove_waste(ws.store, ws.catalog, gone) == []


def test_one_collection_at_a_time(ws: WorkspaceStore) -> None:
    import threading

    said: list[str] = []

    def collect() -> None:
        try:
            gc(ws, UI, remove=True)
        except UserError as error:
            said.append(str(error))

    with erasing(ws.state):
        thread = threading.Thread(target=collect)
        thread.start()
        thread.join()
    assert len(said) == 1
    assert "another process is erasing" in said[0]
