"""Arrow files and streams: rows come back; damage and bombs are refused before Arrow unpacks."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather

from registry.datasets.readers import parquet as readers_parquet
from registry.datasets.readers.arrow_sizes import unpacked_size
from registry.datasets.readers.read import columns_of, read_records
from registry.errors import UserError

TABLE = pa.table({"t": ["one", None, "漢字"] * 400, "n": list(range(1200))})


def write(path: Path, table: pa.Table, *, stream: bool = False, chunk: int = 700) -> Path:
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=chunk)
    return path


@pytest.mark.parametrize("stream", [False, True])
def test_files_and_streams_give_their_rows_numbered(tmp_path: Path, stream: bool) -> None:
    path = write(tmp_path / "d.arrow", TABLE, stream=stream)
    read = list(read_records(path))
    assert [r.line for r in read] == list(range(1, 1201))
    assert [r.value for r in read] == TABLE.to_pylist()
    assert columns_of(path) == ("t", "n")


@pytest.mark.parametrize("compression", ["zstd", "lz4", "uncompressed"])
def test_feather_is_read_with_every_compression(tmp_path: Path, compression: str) -> None:
    feather.write_feather(TABLE, tmp_path / "d.feather", compression=compression)
    assert [r.value for r in read_records(tmp_path / "d.feather")] == TABLE.to_pylist()


def test_nested_and_dictionary_columns_are_plain_values(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "q"}], []]
    table = pa.table({"m": turns, "d": pa.array(["x", "y"]).dictionary_encode()})
    read = [r.value for r in read_records(write(tmp_path / "d.arrow", table, stream=True))]
    assert read == [{"m": turns[0], "d": "x"}, {"m": turns[1], "d": "y"}]


def test_invalid_utf8_rejects_that_row_alone(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff", b"fine"], pa.binary()).cast(pa.string(), safe=False)
    read = list(read_records(write(tmp_path / "d.arrow", pa.table({"t": texts}))))
    assert [r.error for r in read] == [None, "invalid UTF-8", None]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("word", [b"\xff\xff\xff\x0f", b"\xff\xff\xff\xff", b"\0\0\0\x80"])
def test_words_that_point_outside_are_refused_and_never_followed(
    tmp_path: Path, word: bytes, stream: bool
) -> None:
    table = pa.table({"t": ["abc", "de"], "m": [[{"r": "x"}], []]})
    path = write(tmp_path / "d.arrow", table, stream=stream)
    data = path.read_bytes()
    for at in range(0, len(data), 4):
        path.write_bytes(data[:at] + word + data[at + 4 :])
        read_or_refused(path)


def read_or_refused(path: Path) -> None:
    try:
        read = list(read_records(path))
    except UserError:
        return
    assert all(isinstance(r.error, str) for r in read if r.value is None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an Arrow file"),
        (b"ARROW1", "not an Arrow file"),
        (b"rubbish that is long enough to be read", "not an Arrow file"),
        (b"FEA1rubbish", "Feather of version 1"),
    ],
)
def test_what_is_no_arrow_file_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "d.arrow").write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_records(tmp_path / "d.arrow"))


@pytest.mark.parametrize("stream", [False, True])
def test_every_cut_is_refused_or_keeps_whole_rows(tmp_path: Path, stream: bool) -> None:
    path = write(tmp_path / "d.arrow", TABLE.slice(0, 9), stream=stream, chunk=3)
    data = path.read_bytes()
    rows = TABLE.to_pylist()
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        try:
            read = [r.value for r in read_records(path)]
        except UserError:
            continue
        assert read == rows[: len(read)]


def test_sizes_are_those_that_arrow_unpacks(tmp_path: Path) -> None:
    table = pa.table({"t": ["x" * 1000] * 50})
    for compression in ("zstd", "lz4", "uncompressed"):
        feather.write_feather(table, tmp_path / "d.feather", compression=compression)
        found = unpacked_size(io.BytesIO((tmp_path / "d.feather").read_bytes()[8:]))
        assert found.rows == 50
        assert 50_000 <= found.size <= 51_000, compression


def test_bombs_are_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_parquet, "_BOMB_FROM", 1 << 20)
    wide = pa.table({"t": [" " * (1 << 23)]})
    feather.write_feather(wide, tmp_path / "wide.feather", compression="zstd")
    write(tmp_path / "long.arrow", pa.table({"n": pa.nulls(1 << 22)}), chunk=1 << 22)
    monkeypatch.setattr(pa.ipc, "open_file", None)  # would fail if it were reached
    for name in ("wide.feather", "long.arrow"):
        with pytest.raises(UserError, match="bytes that unpack to"):
            columns_of(tmp_path / name)


@given(st.lists(st.none() | st.text(max_size=20), max_size=8), st.booleans())
def test_any_unicode_comes_back(tmp_path_factory, texts: list[str | None], stream: bool) -> None:
    texts = [t and t.encode("utf-8", "ignore").decode() for t in texts]
    table = pa.table({"t": pa.array(texts, pa.string())})
    path = write(tmp_path_factory.getbasetemp() / "any.arrow", table, stream=stream)
    assert [r.value and r.value["t"] for r in read_records(path)] == texts


@given(st.lists(st.none() | st.text(max_size=20), max_size=8))
def test_any_unicode_comes_back_from_parquet(tmp_path_factory, texts: list[str | None]) -> None:
    texts = [t and t.encode("utf-8", "ignore").decode() for t in texts]
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    pq.write_table(pa.table({"t": pa.array(texts, pa.string())}), path)
    assert [r.value and r.value["t"] for r in read_records(path)] == texts


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_nulls_that_arrow_fills_in_are_left_out(tmp_path: Path, suffix: str) -> None:
    """All calls of a column have all the arguments of any of them there."""
    sums = {"name": "sum", "arguments": {"expr": "2+2"}}
    weather = {"name": "weather", "arguments": {"city": "Bern"}}
    rows = [
        {"turns": [{"role": "user", "content": "?"}, {"role": "assistant", "calls": [one]}]}
        for one in (sums, weather)
    ]
    table = pa.Table.from_pylist([{**row, "note": None} for row in rows])
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    assert [one.value for one in read_records(path)] == [{**row, "note": None} for row in rows]
