"""A store where the machine says no: read only, a full disk, a damaged catalog. Words are true."""

from __future__ import annotations

import codecs
import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import Workspace
from pipeline.verbs.erase import erase
from pipeline.verbs.gc import gc
from pipeline.verbs.status import status
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from registry.catalog import recovery
from registry.catalog.catalog import Catalog
from registry.errors import GapmendError, MachineError, StoreError
from registry.store.hashing import file_digest
from registry.store.locks import catalog_lock
from registry.store.objects import Store
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild
from tests.support.care_store import CANARY, ERASED_UID, make
from tests.support.decode import find

UI = Ui(as_json=True)
NOBODY = 65534


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make(root / ".gapmend")
    (root / "gapmend.yaml").write_text("bases: {}")
    return root


@pytest.fixture
def ws(original: Path) -> Iterator[WorkspaceStore]:
    """A copy in a folder that everybody may look into."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(original, Path(folder) / "ws"))
        Path(folder).chmod(0o755)
        yield opened(root)


def opened(root: Path) -> WorkspaceStore:
    return WorkspaceStore(root, Store(root / ".gapmend"), Catalog(root / ".gapmend", wait_s=0.3))


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Nobody may write in a folder; whoever may everything is somebody else meanwhile."""
    places = [root, *root.rglob("*")]
    for path in places:
        path.chmod(0o555 if path.is_dir() else 0o444)
    everything = os.geteuid() == 0
    codecs.lookup("ascii")  # that somebody may not read Python's own files
    if everything:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if everything:
            os.seteuid(0)
        for path in places:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_what_only_reads_works_where_nobody_may_write(ws: WorkspaceStore) -> None:
    ask = "SELECT messages[1].content FROM rows ORDER BY row_uid, version_id"
    wanted = status(ws), ws.catalog.sql(ask).rows, fsck(ws.store, ws.catalog)
    before = sorted(path for path in ws.state.rglob("*"))
    with read_only(ws.root):
        again = opened(ws.root)
        found = status(again), again.catalog.sql(ask).rows, fsck(again.store, again.catalog)
        champion = again.catalog.alias("champion") or ""
        assert repr(Workspace.open(ws.root)).endswith(f"champion {champion[:12]})")
        with pytest.raises((MachineError, OSError)):
            again.catalog.reserve_uids(1)
    assert found == wanted
    assert sorted(path for path in ws.state.rglob("*")) == before


def test_fsck_looks_past_what_can_t_be_read(ws: WorkspaceStore, monkeypatch) -> None:
    adapter = next((ws.store.objects / "adapter").iterdir()) / "data.bin"
    model = next((ws.store.objects / "model").iterdir()) / "manifest.json"
    rows = next((ws.store.objects / "rows").iterdir()) / "rows.parquet"
    rows.unlink()
    read, digest = Path.read_text, file_digest

    def sector(path: Path) -> str:
        if path == adapter:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(path)

    def forbidden(path: Path, *given: str, **named: str) -> str:
        if path == model:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(path, *given, **named)

    monkeypatch.setattr("registry.upkeep.fsck.file_digest", sector)
    monkeypatch.setattr(Path, "read_text", forbidden)
    found = {(one.problem, one.path): one.detail for one in fsck(ws.store, ws.catalog).findings}
    places = [path.relative_to(ws.state).as_posix() for path in (adapter, model.parent, rows)]
    assert [*found] == [("changed", places[0]), ("manifest", places[1]), ("missing", places[2])]
    assert "Input/output error" in found["changed", places[0]]
    assert "may not be read by us" in found["manifest", places[1]]


def test_a_read_only_store_waits_for_who_writes(ws: WorkspaceStore) -> None:
    said = rf"process {os.getpid()} has held the catalog"
    with (
        catalog_lock(ws.state, 1),
        read_only(ws.root),
        pytest.raises(GapmendError, match=said),
    ):
        status(opened(ws.root))


def test_a_read_only_store_whose_catalog_is_lost_says_so(ws: WorkspaceStore) -> None:
    (ws.state / "catalog.duckdb").unlink()
    with read_only(ws.root), pytest.raises(MachineError, match="has to be brought up to date"):
        status(opened(ws.root))


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_catalog_names_rebuild_and_hides_no_damaged_object(
    ws: WorkspaceStore, seed: int
) -> None:
    draw = random.Random(seed)
    catalog = ws.state / "catalog.duckdb"
    data = bytearray(catalog.read_bytes())
    for place in range(0, len(data), 4096 * 16):  # somewhere in each of DuckDB's blocks
        data[place + draw.randrange(4096)] ^= 1 << draw.randrange(8)
    catalog.write_bytes(data)
    adapter = next((ws.store.objects / "adapter").iterdir()) / "data.bin"
    adapter.chmod(0o644)
    adapter.write_bytes(b"other")
    verbs = (
        lambda: status(ws), lambda: gc(ws, UI, remove=False), lambda: gc(ws, UI, remove=True),
        lambda: ws.catalog.reserve_uids(1), lambda: ws.catalog.alias("champion"),
    )  # fmt: skip
    for verb in verbs:
        with pytest.raises(StoreError, match=r"catalog\.duckdb.*Run `gapmend rebuild`"):
            verb()
    found = {(one.problem, one.path) for one in fsck(ws.store, ws.catalog).findings}
    hit = adapter.relative_to(ws.state).as_posix()
    assert found == {("index", "catalog.duckdb"), ("changed", hit)}
    rebuild(ws.store, ws.catalog)
    assert [one.path for one in fsck(ws.store, ws.catalog).findings] == [hit]


@pytest.mark.parametrize("text", ['"\\ud800"', "NaN", "-Infinity"])
def test_a_manifest_that_could_not_be_written_is_no_fault_of_a_rebuild(
    ws: WorkspaceStore, text: str
) -> None:
    folder = next((ws.store.objects / "gap").iterdir())
    path = folder / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"meta": {', f'"meta": {{"more": {text},', 1))
    (said,) = rebuild(ws.store, ws.catalog).unreadable
    assert str(path) in said


def test_an_erasure_that_is_decided_is_not_said_to_be_lost(ws, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "create_catalog", full)
        with pytest.raises(MachineError) as refused:
            erase(ws, UI, None, (ERASED_UID,), reason="", do=True)
        with pytest.raises(MachineError) as next_one:
            status(ws)
    for said in (str(refused.value), str(next_one.value)):
        assert "an erasure of rows is decided, and the disk is too full" in said
        assert "not saved" not in said
    status(ws)  # there is room again: it comes to its end
    assert find(ws.state, CANARY) == set()
