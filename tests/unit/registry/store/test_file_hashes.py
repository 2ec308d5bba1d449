"""A large file's hash is kept as long as the file looks the same, and no longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from registry.store import hashing
from registry.store.hashing import file_digest


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files that are read, in what look like processes of their own."""
    monkeypatch.setattr(hashing, "REMEMBER_FROM_BYTES", 3)
    monkeypatch.setattr(hashing, "_SEEN", {})
    seen: list[str] = []

    def digest(path: Path) -> str:
        seen.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(hashing, "file_digest", digest)
    return seen


def again(path: Path, root: Path) -> str:
    hashing._SEEN.clear()
    return hashing.remembered_digest(path, root)


def test_an_old_file_is_read_once_and_a_changed_one_again(tmp_path, reads) -> None:
    path = tmp_path / "rows"
    path.write_text("first")
    os.utime(path, (1, 1))
    assert again(path, tmp_path) == again(path, tmp_path) == file_digest(path)
    assert reads == ["rows"]
    path.write_text("other")
    assert again(path, tmp_path) == file_digest(path)
    os.utime(path, (1, 1))
    again(path, tmp_path)
    assert reads == ["rows"] * 2  # by path, size, time and inode it is the first again


def test_what_was_changed_just_now_and_what_is_small_is_not_kept(tmp_path, reads) -> None:
    new, small = tmp_path / "new", tmp_path / "small"
    new.write_text("rows")
    small.write_text("r")
    os.utime(small, (1, 1))
    for path in (new, new, small, small):
        again(path, tmp_path)
    assert reads == ["new", "new", "small", "small"]


def test_a_kept_hash_with_a_flipped_bit_is_none(tmp_path, reads) -> None:
    path = tmp_path / "rows"
    path.write_text("first")
    os.utime(path, (1, 1))
    again(path, tmp_path)
    kept = tmp_path / ".gapmend" / "cache" / "hashes.kept"
    data = bytearray(kept.read_bytes())
    data[-5] ^= 1  # in the hash
    kept.write_bytes(data)
    assert again(path, tmp_path) == file_digest(path)
    assert reads == ["rows"] * 2
