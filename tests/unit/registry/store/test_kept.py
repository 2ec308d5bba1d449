"""What can be made again is kept with its hash: one bit off, and it isn't there."""

from __future__ import annotations

from pathlib import Path

from registry.store.kept import keep, kept


def test_what_is_kept_comes_back_or_is_none(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.kept"
    assert kept(path) is None
    for data in (b"", b"line\nline\n", bytes(range(256))):
        keep(path, data)
        assert kept(path) == data
    assert [one.name for one in path.parent.iterdir()] == ["a.kept"]


def test_any_flipped_bit_and_any_cut_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.kept"
    keep(path, b"some vectors")
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 3):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        assert kept(path) is None, place
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert kept(path) is None
