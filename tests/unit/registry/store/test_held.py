"""An object that is used is held against its manifest first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from registry.errors import StoreError
from registry.store import held
from registry.store.hashing import file_digest
from registry.store.objects import ObjectRef, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".gapmend")


def put(store: Store, number: int = 1) -> ObjectRef:
    with store.draft() as draft:
        (draft / "data.bin").write_bytes(b"0123456789")
        (draft / "inner").mkdir()
        (draft / "inner" / "more.txt").write_text("more")
        return store.put("made", draft, identity={"number": number})


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["data.bin", "inner/more.txt"])
def test_a_flipped_bit_is_found_where_the_object_is_used(store: Store, name: str) -> None:
    ref = put(store)
    assert store.get("made", ref.id) == ref
    flip(ref.path / name)
    with pytest.raises(StoreError, match=rf"{name}: this stored file can't be read.*SHA-256"):
        store.get("made", ref.id)
    assert store.find("made", ref.id) == ref  # without a look at its bytes
    with pytest.raises(StoreError, match=name):
        put(store)  # made again, it would be taken for whole


def test_a_missing_file_is_found(store: Store) -> None:
    ref = put(store)
    (ref.path / "data.bin").unlink()
    with pytest.raises(StoreError, match=r"data\.bin.*No such file"):
        store.get("made", ref.id)
    assert store.find("made", "0" * 64) is None


def test_a_file_is_read_once_until_it_looks_otherwise(store: Store, monkeypatch) -> None:
    read: list[str] = []

    def counting(path: Path) -> str:
        read.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(held, "file_digest", counting)
    ref = put(store)
    file = ref.path / "data.bin"
    for path in (file, ref.path / "inner" / "more.txt"):
        os.utime(path, (1, 1))
    for _ in range(3):
        store.get("made", ref.id)
    assert sorted(read) == ["data.bin", "more.txt"]
    os.utime(file, (2, 2))
    store.get("made", ref.id)
    assert sorted(read) == ["data.bin", "data.bin", "more.txt"]


def test_what_was_written_just_now_is_read_each_time(store: Store) -> None:
    ref = put(store)
    file = ref.path / "data.bin"
    store.get("made", ref.id)
    state = file.stat()
    flip(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # within a tick of the clock
    with pytest.raises(StoreError):
        store.get("made", ref.id)
