"""Columns that are more than Arrow's types say: JSON in text, numbers of classes, bytes of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.datasets.readers.read import Reading, read_records, taken_as

CLASS = {"names": ["no", "yes"], "_type": "ClassLabel"}
WORD = {"dtype": "string", "_type": "Value"}


def write(path: Path, table: pa.Table, features: Any = None) -> Path:
    """Write a table with features as `datasets` writes them, in the form that its ending says."""
    if features is not None:
        whole = {"info": {"features": features}}
        said = features if isinstance(features, str) else json.dumps(whole)
        table = table.replace_schema_metadata({"huggingface": said})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        make = pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream
        with make(str(path), table.schema) as out:
            out.write_table(table)
    return path


def values(path: Path, reading: Reading | None = None) -> list[Any]:
    return [record.value for record in read_records(path, reading or Reading())]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_json_is_decoded_wherever_it_is(tmp_path: Path, suffix: str) -> None:
    defaults = pa.array(["5", '"5"'], pa.json_())
    tools = pa.StructArray.from_arrays([pa.array(["f", "g"]), defaults], ["name", "default"])
    turns = pa.array(['{"role": "user", "n": 5}'], pa.json_())
    table = pa.table(
        {
            "messages": pa.ListArray.from_arrays(pa.array([0, None, 1], pa.int32()), turns),
            "tools": pa.ListArray.from_arrays(pa.array([0, 2, 2], pa.int32()), tools),
            "plain": ['{"not": "json"}', "x"],
        }
    )
    path = write(tmp_path / f"d{suffix}", table)
    assert values(path) == [
        {
            "messages": [{"role": "user", "n": 5}],
            "tools": [{"name": "f", "default": 5}, {"name": "g", "default": "5"}],
            "plain": '{"not": "json"}',
        },
        {"messages": None, "tools": [], "plain": "x"},
    ]
    assert taken_as(path) == ("messages: JSON", "tools: JSON")


def test_json_in_text_is_decoded_where_the_features_say_so(tmp_path: Path) -> None:
    table = pa.table({"a": ["5", None, "[1"], "b": ["5", "6", "7"]})
    path = write(tmp_path / "d.parquet", table, {"a": {"_type": "Json"}, "b": WORD})
    read = list(read_records(path))
    assert [r.value for r in read] == [{"a": 5, "b": "5"}, {"a": None, "b": "6"}, None]
    assert str(read[2].error).startswith("column 'a' is no JSON: ")


def test_classes_have_their_names(tmp_path: Path) -> None:
    table = pa.table(
        {
            "one": [1, -1, None, 7],
            "several": [[0, 1], [], None, []],
            "legacy": [[0], [], None, []],
            "parts": [{"kind": [1]}, None, {"kind": None}, None],
            "count": [1, 0, 1, 0],
        }
    )
    features = {
        "one": CLASS,
        "several": {"feature": CLASS, "_type": "List"},
        "legacy": [CLASS],
        "parts": {"feature": {"kind": CLASS}, "_type": "Sequence"},
        "count": {"dtype": "int64", "_type": "Value"},
    }
    read = list(read_records(write(tmp_path / "d.parquet", table, features)))
    assert [r.value for r in read[:3]] == [
        {"one": "yes", "several": ["no", "yes"], "legacy": ["no"], "parts": {"kind": ["yes"]}}
        | {"count": 1},
        {"one": None, "several": [], "legacy": [], "parts": None, "count": 0},
        {"one": None, "several": None, "legacy": None, "parts": {}, "count": 1},
    ]
    assert read[3].error == "column 'one' has no such class: 7 of 2"


@pytest.mark.parametrize(
    "features",
    ["{", "[]", '{"info": {"features": 3}}', {"a": {"names": 3, "_type": "ClassLabel"}}, {"a": 3}],
)
def test_features_of_another_form_are_passed_over(tmp_path: Path, features: Any) -> None:
    path = write(tmp_path / "d.parquet", pa.table({"a": [1]}), features)
    assert values(path) == [{"a": 1}]
    assert taken_as(path) == ()


def test_bytes_are_text_in_the_encoding_that_is_said(tmp_path: Path) -> None:
    cells = pa.array([b"caf\xc3\xa9", b"caf\xe9", None], pa.binary())
    path = write(tmp_path / "d.parquet", pa.table({"t": cells, "n": [1, 2, 3]}))
    read = list(read_records(path))
    assert [r.value for r in read] == [{"t": "café", "n": 1}, None, {"t": None, "n": 3}]
    assert read[1].error == (
        "column 't' holds bytes that are no UTF-8: byte 0xe9; in windows-1252 it reads 'café'"
    )
    assert values(path, Reading("latin-1"))[1] == {"t": "café", "n": 2}
