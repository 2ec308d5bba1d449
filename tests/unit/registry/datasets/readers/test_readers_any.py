"""Any bytes in any kind of file: records, rejects, or one clear line; never another error."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.datasets.readers.read import Record, columns_of, read_records, taken_as
from registry.errors import UserError

TEXTS = {
    ".csv": b'text,n\n"a\nb",1\nc,2\n',
    ".tsv": b"text\tn\na\t1\n",
    ".json": b'[{"a": 1, "b": [null, "\\u00e9"]}, {"a": {}}]',
    ".jsonl": b'{"a": 1}\n{"a": "x"}\n',
    ".txt": b"one\ntwo\n",
}
TABLE = pa.table({"t": ["one", None, "three"], "m": [[{"r": "x"}], [], None]})


def tables() -> dict[str, bytes]:
    parquet, file, stream = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(TABLE, parquet)
    with pa.ipc.new_file(file, TABLE.schema) as out:
        out.write_table(TABLE)
    with pa.ipc.new_stream(stream, TABLE.schema) as out:
        out.write_table(TABLE)
    return {
        ".parquet": parquet.getvalue(),
        ".feather": file.getvalue(),
        ".arrow": stream.getvalue(),
    }


# The same endings in other writing.
WRITTEN = {
    "-16.csv": TEXTS[".csv"].decode().encode("utf-16"),
    "-16.jsonl": TEXTS[".jsonl"].decode().encode("utf-16-le"),
    "-sep.csv": b"sep=;\r\ntext;n;;\r\na;1;;\r\nb;2;;\r\n",
    "-indented.jsonl": b'{\n "a": 1\n}\n{\n "a": [2,\n 3]\n}\n',
    "-python.jsonl": b"{'a': 1, 'b': None}\n{'a': 'x', 'b': (True, 1.5)}\n",
    "-array.jsonl": TEXTS[".json"],
}
FEATURES = {
    "j": {"_type": "Json"},
    "c": {"names": ["a", "b"], "_type": "ClassLabel"},
    "l": {"feature": {"_type": "Json"}, "_type": "List"},
}
DESCRIBED = pa.table(
    {"j": ['{"a": 1}', None], "c": [0, 1], "l": [["1"], []], "b": [b"x", b"y"]}
).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})


def described() -> dict[str, bytes]:
    parquet, stream = io.BytesIO(), io.BytesIO()
    pq.write_table(DESCRIBED, parquet)
    with pa.ipc.new_stream(stream, DESCRIBED.schema) as out:
        out.write_table(DESCRIBED)
    return {"-said.parquet": parquet.getvalue(), "-said.arrow": stream.getvalue()}


WHOLE = (
    TEXTS
    | tables()
    | WRITTEN
    | described()
    | {f"{suffix}.gz": gzip.compress(data, mtime=0) for suffix, data in TEXTS.items()}
)


def read(path: Path) -> list[Record] | None:
    """Read a file both ways; None where it is refused."""
    said = ""
    found: list[Record] | None
    try:
        columns_of(path)
        assert "\n" not in "".join(taken_as(path))
        found = list(read_records(path))
    except UserError as error:
        said = str(error)
        found = None
    if found is None:
        assert "\n" not in said
        assert path.name in said
        return None
    assert all((r.value is None) != (r.error is None) for r in found)
    assert [r.line for r in found] == sorted({r.line for r in found})
    return found


@pytest.mark.parametrize("suffix", WHOLE)
def test_whole_files_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_bytes(WHOLE[suffix])
    assert read(path)


@pytest.mark.parametrize("suffix", WHOLE)
@given(st.data())
@settings(deadline=None, max_examples=25)
def test_any_damage_is_a_reject_or_one_line(
    tmp_path_factory, suffix: str, data: st.DataObject
) -> None:
    whole = bytearray(WHOLE[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
        if what == "flip":
            whole[at] ^= data.draw(st.integers(1, 255))
        elif what == "cut":
            del whole[at : at + data.draw(st.integers(1, 16))]
        elif what == "insert":
            whole[at:at] = data.draw(st.binary(max_size=8))
        else:
            whole[at : at + 4] = b"\0\0\0\0"
        if not whole:
            break
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(whole)
    read(path)


@pytest.mark.parametrize("suffix", WHOLE)
@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=15)
def test_any_bytes_are_a_reject_or_one_line(tmp_path_factory, suffix: str, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(data)
    read(path)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
@pytest.mark.parametrize("name", [b"first", b"inner"])
def test_names_that_are_no_utf8_are_one_line(tmp_path: Path, suffix: str, name: bytes) -> None:
    table = pa.table({"first": [{"inner": 1}]})
    path = tmp_path / f"d{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_file if suffix == ".feather" else pa.ipc.new_stream)(
            str(path), table.schema
        ) as out:
            out.write_table(table)
    data = path.read_bytes()
    assert name in data
    path.write_bytes(data.replace(name, name[:-1] + b"\xf4"))
    found = read(path)
    assert found is None or [r.error for r in found] == ["invalid UTF-8"]
