"""Packed texts: what is read is what was packed; damage and bombs are one clear line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.readers import packed as compressed
from registry.datasets.readers.read import Record, columns_of, file_type, read_records
from registry.errors import UserError

LINES = b'{"a": 1}\n\noops\n{"a": 2}\n'


def pack(path: Path, data: bytes) -> Path:
    """Write `data` as the suffix says."""
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(data)
    else:
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("d.csv", b'text,n\n"a\nb",1\nc,2\n'),
        ("d.tsv", b"text\tn\na\t1\n"),
        ("d.json", b'[{"a": 1}, {"a": "\xe6\xbc\xa2"}]'),
        ("d.jsonl", LINES),
        ("d.ndjson", LINES),
        ("d.txt", b"one\n\ntwo\r\n"),
    ],
)
def test_a_packed_text_has_the_records_and_lines_of_the_text(
    tmp_path: Path, name: str, data: bytes, packing: str
) -> None:
    plain = list(read_records(pack(tmp_path / name, data)))
    packed = pack(tmp_path / f"{name}{packing}", data)
    assert plain
    assert list(read_records(packed)) == plain
    assert columns_of(packed) == columns_of(tmp_path / name)


def test_lines_are_those_of_the_unpacked_text(tmp_path: Path) -> None:
    read = list(read_records(pack(tmp_path / "d.jsonl.gz", LINES)))
    assert [(r.line, r.error) for r in read] == [
        (1, None),
        (3, "malformed JSON: Expecting value"),
        (4, None),
    ]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_several_members_are_one_text(tmp_path: Path, packing: str) -> None:
    path = pack(tmp_path / f"d.txt{packing}", b"one\n")
    path.write_bytes(path.read_bytes() * 3)
    assert len(list(read_records(path))) == 3


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["short", "garbage", "flipped"])
def test_damage_is_one_line(tmp_path: Path, packing: str, damage: str) -> None:
    path = pack(tmp_path / f"d.txt{packing}", b"one two three\n" * 50)
    data = path.read_bytes()
    middle = 3 if packing == ".zst" else len(data) // 2  # zstd's own header, or the stream
    path.write_bytes(
        {
            "short": data[:-6],
            "garbage": data + b"rubbish",
            "flipped": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
        }[damage]
    )
    with pytest.raises(UserError, match=rf"d\.txt{packing}, after .* a damaged {packing} file"):
        list(read_records(path))


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["d.csv", "d.json", "d.jsonl", "d.txt"])
def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str, name: str
) -> None:
    path = pack(tmp_path / f"{name}{packing}", b"[" + b" " * 3_000_000)
    monkeypatch.setattr(compressed, "_CHUNK", 1 << 16)
    assert not isinstance(read_all(path), UserError) or "unpack" not in str(read_all(path))
    monkeypatch.setattr(compressed, "_BOMB_FROM", 1 << 20)
    assert "unpack to more than 250 times" in str(read_all(path))


def read_all(path: Path) -> list[Record] | UserError:
    try:
        return list(read_records(path))
    except UserError as error:
        return error


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program isn't here")
def test_what_the_zstd_program_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(LINES * 1000)
    subprocess.run(["zstd", "-q", "-19", str(tmp_path / "d.jsonl")], check=True)
    assert len(list(read_records(tmp_path / "d.jsonl.zst"))) == 3000


def test_only_texts_may_be_packed() -> None:
    assert file_type(Path("a.jsonl.GZ")) == ".jsonl"
    assert file_type(Path("a.b.csv.zst")) == ".csv"
    for name in ("a.gz", "a.parquet.gz", "a.zst", "a.tar.gz", "a.jsonl.bz2", "jsonl.gz", ".gz"):
        assert file_type(Path(name)) is None, name


TEXT = st.text(max_size=20)


@given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from([".gz", ".zst"]))
def test_any_unicode_comes_back_through_each_packed_text(
    tmp_path_factory, texts: list[str], packing: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    lines = "".join(json.dumps({"t": t}, ensure_ascii=False) + "\n" for t in texts)
    array = json.dumps([{"t": t} for t in texts], ensure_ascii=False)
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows([["t", "n"], *([t, "1"] for t in texts)])
    for name, text in (("u.jsonl", lines), ("u.json", array), ("u.csv", table.getvalue())):
        read = list(read_records(pack(folder / f"{name}{packing}", text.encode())))
        assert [r.value and r.value["t"] for r in read] == texts


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_unicode_comes_back_through_plain_text(tmp_path_factory, texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode().replace("\n", " ") for text in texts]
    texts = [text.rstrip("\r") for text in texts if text.strip()]
    path = pack(tmp_path_factory.getbasetemp() / "u.txt.gz", "\n".join(texts).encode())
    read = [r.value["text"] for r in read_records(path) if r.value]
    assert read == [t.removeprefix("\ufeff") if i == 0 else t for i, t in enumerate(texts)]


def test_an_array_is_parsed_element_by_element_and_its_faults_are_named(tmp_path: Path) -> None:
    def told(data: bytes) -> str:
        (tmp_path / "d.json").write_bytes(data)
        return str(read_all(tmp_path / "d.json"))

    assert "d.json:1:11: malformed JSON: Expecting ',' delimiter" in told(b'[{"a": 1} {"a": 2}]')
    assert "d.json:2:1: malformed JSON: Expecting value" in told(b'[{"a": 1},\n]')
    assert "malformed JSON: Extra data" in told(b'[{"a": 1}] x')
    assert "malformed JSON: Expecting" in told(b'[{"a": 1}')
    assert "malformed JSON: Expecting value" in told(b" ")
    assert "malformed JSON: NaN is not JSON" in told(b'[{"a": NaN}]')
    assert "not a list of records" in told(b'"text"')
    assert told(b" [ ] ") == "[]"
    assert "one JSON object with the keys data, version" in told(
        b'{\n "data": [{"a": 1}],\n "version": 1\n}'
    )
