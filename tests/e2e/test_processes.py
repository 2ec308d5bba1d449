"""Several processes on one store: at once, against another program, and on a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from registry.catalog.catalog import Catalog
from registry.errors import UserError
from registry.store.objects import ObjectRef, Store
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild

COMMITTER = """
    import sys
    from pathlib import Path
    from registry.catalog.catalog import Catalog
    from registry.store.objects import Store

    root, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    store, catalog = Store(root), Catalog(root, wait_s=60)
    for number in range(count):
        with store.draft() as draft:
            (draft / "data.bin").write_bytes(f"{who} {number}".encode())
            own = store.put("made", draft, identity={"who": who, "number": number})
        shared = store.put("shared", None, identity={"number": number})
        catalog.commit([own, shared])
        print("ack", own.id, catalog.reserve_uids(7), flush=True)
"""

HOLDER = """
    import sys, time
    import duckdb

    held = duckdb.connect(sys.argv[1])
    held.execute("CREATE TABLE IF NOT EXISTS notes (text VARCHAR)")
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(code: str, *args: object) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def put_one(store: Store, name: str = "one") -> ObjectRef:
    with store.draft() as draft:
        (draft / "data.bin").write_bytes(b"x" * 1000)
        return store.put("made", draft, identity={"name": name})


def test_four_processes_commit_at_once(tmp_path: Path) -> None:
    count = 6
    writers = [start(COMMITTER, tmp_path, f"writer {n}", count) for n in range(4)]
    said = [writer.communicate(timeout=240) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0], said
    lines = [line.split() for out, _ in said for line in out.splitlines()]
    assert len(lines) == 4 * count
    store, catalog = Store(tmp_path), Catalog(tmp_path)
    made = {manifest.id for manifest in catalog.committed("made")}
    assert made == {line[1] for line in lines}
    assert len(catalog.committed("shared")) == count
    firsts = sorted(int(line[2]) for line in lines)
    assert firsts == list(range(0, 7 * 4 * count, 7))
    assert fsck(store, catalog).findings == ()


@pytest.fixture
def holder(tmp_path: Path):
    """Start another program that has the catalog open; given the seconds that it keeps it."""
    running = []

    def hold(seconds: float) -> subprocess.Popen:
        child = start(HOLDER, tmp_path / "catalog.duckdb", seconds)
        running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        return child

    yield hold
    for child in running:
        child.kill()
        child.communicate()


def test_a_writer_names_who_holds_the_catalog_and_loses_nothing(tmp_path: Path, holder) -> None:
    store = Store(tmp_path)
    Catalog(tmp_path).commit([put_one(store)])
    child = holder(60)
    late = put_one(store, "ten hours of training")
    with pytest.raises(UserError) as caught:
        Catalog(tmp_path, wait_s=0.5).commit([late])
    line = str(caught.value)
    assert f"process {child.pid} (" in line
    assert "`gapmend rebuild`: it finds all finished files" in line
    assert "\n" not in line
    with pytest.raises(UserError, match=str(child.pid)):
        rebuild(store, Catalog(tmp_path, wait_s=0.2))
    child.kill()
    child.wait()
    rebuild(store, Catalog(tmp_path))
    assert Catalog(tmp_path).manifest(late.id).identity == {"name": "ten hours of training"}


def test_a_writer_waits_for_who_holds_the_catalog(tmp_path: Path, holder, caplog) -> None:
    store = Store(tmp_path)
    Catalog(tmp_path).commit([put_one(store)])
    child = holder(1.5)
    Catalog(tmp_path, wait_s=60).commit([put_one(store, "two")])
    assert len(Catalog(tmp_path).committed("made")) == 2
    assert f"open in process {child.pid}" in caplog.text


def test_a_reader_that_waits_for_the_lock_names_the_process(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from registry.store.locks import catalog_lock
        with catalog_lock(Path(sys.argv[1]), 5):
            print("held", flush=True)
            time.sleep(60)
    """
    child = start(code, tmp_path)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"process {child.pid} has held the catalog"):
            Catalog(tmp_path, wait_s=0.3).committed("made")
    finally:
        child.kill()
        child.communicate()
    began = time.monotonic()
    assert Catalog(tmp_path, wait_s=5).committed("made") == []
    assert time.monotonic() - began < 5


@pytest.fixture
def small_disk(tmp_path: Path):
    """Mount a file system of 3 MB; skipped where that is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_nothing_is_half_there(small_disk: Path) -> None:
    store, catalog = Store(small_disk), Catalog(small_disk)
    first = put_one(store)
    catalog.commit([first])
    with pytest.raises(UserError, match="the disk is full") as caught, store.draft() as draft:
        (draft / "big.bin").write_bytes(os.urandom(4_000_000))
    assert "\n" not in str(caught.value)
    assert [manifest.id for manifest in catalog.committed("made")] == [first.id]
    report = fsck(store, catalog)
    assert report.findings == ()


def test_a_disk_that_fills_at_the_commit(small_disk: Path) -> None:
    store, catalog = Store(small_disk), Catalog(small_disk)
    first = put_one(store)
    catalog.commit([first])
    refs = [store.put("made", None, identity={"n": n}, meta={"x": "y" * 3000}) for n in range(20)]
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(b"0" * (free - 8192))
    with pytest.raises(UserError, match="the disk is full"):
        catalog.commit(refs)
    (small_disk / "filler").unlink()
    assert [manifest.id for manifest in catalog.committed("made")] == [first.id]
    catalog.commit(refs)
    assert len(catalog.committed("made")) == 21
    assert fsck(store, catalog).findings == ()
