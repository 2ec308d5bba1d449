from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.errors import StoreError, UserError
from registry.store.clock import moment
from registry.store.hashing import digest
from registry.store.objects import ObjectRef, Parent, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".gapmend")


def put(store: Store, data: bytes = b"data", **identity: object) -> ObjectRef:
    with store.draft() as draft:
        (draft / "data.bin").write_bytes(data)
        (draft / "inner").mkdir()
        (draft / "inner" / "more.txt").write_text("more")
        return store.put("made", draft, identity=identity, meta={"note": "n"})


def test_an_object_describes_itself(store: Store) -> None:
    parent = put(store, number=1)
    ref = store.put(
        "child", None, identity={"of": 1}, parents=[Parent(parent.id, "source")], meta={"x": 1}
    )
    assert ref.id == digest({"kind": "child", "identity": {"of": 1}})
    manifest = store.manifest(ref)
    assert manifest["parents"] == [{"id": parent.id, "role": "source"}]
    assert manifest["meta"]["x"] == 1
    assert manifest["meta"]["created_at"].endswith("+00:00")
    files = store.manifest(parent)["files"]
    assert sorted(files) == ["data.bin", "inner/more.txt"]
    assert files["data.bin"]["bytes"] == 4
    assert (parent.path / "data.bin").read_bytes() == b"data"
    assert [found["id"] for found in store.manifests()] == [ref.id, parent.id]


def test_the_first_of_an_id_stays(store: Store) -> None:
    first = put(store, b"first", number=1)
    second = put(store, b"second", number=1)
    assert second == first
    assert (first.path / "data.bin").read_bytes() == b"first"
    assert list(store.drafts.iterdir()) == []


def test_files_cannot_be_changed_by_accident(store: Store) -> None:
    ref = put(store, number=1)
    assert (ref.path / "data.bin").stat().st_mode & 0o222 == 0
    assert (ref.path / "manifest.json").stat().st_mode & 0o222 == 0


def test_a_draft_that_is_not_put_is_gone(store: Store) -> None:
    with pytest.raises(IsADirectoryError), store.draft() as draft:
        draft.write_bytes(b"x")
    assert list(store.drafts.iterdir()) == []
    assert not store.objects.exists()


def test_absent_and_damaged_objects_are_named(store: Store) -> None:
    with pytest.raises(StoreError, match="made 000000000000 is not in the store"):
        store.get("made", "0" * 64)
    ref = put(store, number=1)
    path = ref.path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.unlink()
    for damaged in ("{", "[]", json.dumps(manifest | {"identity": {"number": 2}})):
        path.write_text(damaged)
        with pytest.raises(StoreError, match="manifest"):
            store.manifest(ref)


def test_drafts_of_killed_processes_are_swept_and_others_are_not(store: Store) -> None:
    code = (
        "import os, sys; from pathlib import Path; from registry.store.objects import Store\n"
        "with Store(Path(sys.argv[1])).draft() as draft:\n"
        "    (draft / 'big').write_bytes(b'x'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert len(store.leftovers()) == 1
    (store.drafts / f"another-machine.{2**22 + 1}.ab").mkdir()
    with store.draft() as draft:
        assert store.leftovers() == []
        assert draft.is_dir()
        assert len(list(store.drafts.iterdir())) == 2


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "quota"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # as safetensors says it
    ],
)
def test_a_full_disk_while_writing_is_one_line(store: Store, error: Exception) -> None:
    with pytest.raises(UserError, match="the disk is full") as caught, store.draft():
        raise error
    assert caught.value.exit_code == 2
    assert list(store.drafts.iterdir()) == []


def test_a_full_disk_at_fsync_leaves_no_object(store: Store, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        put(store, number=1)
    assert list(store.manifests()) == []
    assert list(store.drafts.iterdir()) == []


def test_other_errors_are_not_taken_for_a_full_disk(store: Store) -> None:
    with pytest.raises(PermissionError), store.draft():
        raise PermissionError(errno.EACCES, "no")


def test_what_is_put_later_is_newer_whatever_the_clock_says(store: Store, monkeypatch) -> None:
    class Back(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(days=1)

    def made(number: int) -> str:
        return store.manifest(put(store, number=number))["meta"]["created_at"]

    first = made(1)
    monkeypatch.setattr("registry.store.clock.datetime", Back)
    second, third = made(2), made(3)
    assert first < second < third
    assert datetime.fromisoformat(third) - datetime.fromisoformat(first) < timedelta(seconds=1)
    monkeypatch.undo()
    assert third < made(4) <= datetime.now(UTC).isoformat(timespec="microseconds")
    for torn in ("", "2026-01-", "2026-01-02", "\0\0"):
        (store.root / "clock").write_text(torn)
        assert moment(store.root)[:4] == str(datetime.now(UTC).year)
