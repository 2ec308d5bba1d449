"""Every reader: the right lines, and whatever can't be read is a reject or one clear line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.readers.read import Record, columns_of, read_records
from registry.errors import UserError


def records(tmp_path: Path, name: str, data: bytes) -> list[Record]:
    path = tmp_path / name
    path.write_bytes(data)
    return list(read_records(path))


def test_csv_lines_are_physical_lines_also_after_quoted_newlines(tmp_path: Path) -> None:
    data = b'text,label\n"one\ntwo\nthree",a\nfour,b\n\n"five",c\n'
    read = records(tmp_path, "d.csv", data)
    assert [(r.line, r.value) for r in read] == [
        (2, {"text": "one\ntwo\nthree", "label": "a"}),
        (5, {"text": "four", "label": "b"}),
        (7, {"text": "five", "label": "c"}),
    ]


def test_csv_with_a_byte_order_mark_crlf_and_tabs(tmp_path: Path) -> None:
    assert records(tmp_path, "d.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n")[0].value == {
        "a": "1",
        "b": "2",
    }
    assert records(tmp_path, "d.tsv", b"a\tb\n1,5\t2\n")[0].value == {"a": "1,5", "b": "2"}


def test_csv_header_in_another_encoding_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"t\xe9xt,team\na,b\n")
    with pytest.raises(UserError, match=r"a\.csv:1: the header is no UTF-8 text.*reads 'téxt'"):
        columns_of(tmp_path / "a.csv")


def test_csv_line_with_the_wrong_number_of_fields_is_a_reject(tmp_path: Path) -> None:
    read = records(tmp_path, "d.csv", b"a,b\n1\n1,2\n1,2,3\n")
    assert [(r.line, r.error) for r in read if r.error] == [
        (2, "1 fields where the header has 2"),
        (4, "3 fields where the header has 2"),
    ]


def test_csv_malformed_quote_is_a_reject_and_the_next_line_is_read(tmp_path: Path) -> None:
    read = records(tmp_path, "d.csv", b'a,b\n"x"y,2\n3,4\n')
    assert read[0].line == 2
    assert "malformed line" in str(read[0].error)
    assert read[1] == Record(3, {"a": "3", "b": "4"})


def test_csv_quote_that_is_never_closed_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d\.csv:3: a quote opened here is never closed"):
        records(tmp_path, "d.csv", b'a,b\n1,2\n"x,2\n3,4\n')


@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), max_size=5))
def test_csv_rows_come_back_whatever_they_hold(tmp_path_factory, rows: list[list[str]]) -> None:
    rows = [[cell.encode("utf-8", "ignore").decode() for cell in row] for row in rows]
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b"], *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(out.getvalue().encode())
    read = list(read_records(path))
    assert [list((r.value or {}).values()) for r in read] == rows


def test_jsonl_bad_lines_are_rejects_with_their_line(tmp_path: Path) -> None:
    data = b'{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"a": NaN}\n{"a": "\xe6\xbc\xa2\xe2\x80\xa8"}'
    read = records(tmp_path, "d.jsonl", data)
    assert [r.line for r in read] == [1, 3, 4, 5, 6, 7]
    assert [r.error and r.error.split(":")[0] for r in read] == [
        None,
        "malformed JSON",
        "not a JSON object",
        "invalid UTF-8",
        "malformed JSON",
        None,
    ]
    assert read[-1].value == {"a": "漢\u2028"}


def test_jsonl_nested_too_deeply_is_a_reject(tmp_path: Path) -> None:
    read = records(tmp_path, "d.jsonl", b"[" * 200_000 + b"\n" + b'{"a": 1}\n')
    assert read[0].error == "malformed JSON: nested too deeply"
    assert read[1].value == {"a": 1}


def test_json_arrays_count_elements_and_objects_a_line_are_json_lines(tmp_path: Path) -> None:
    read = records(tmp_path, "d.json", b'[{"a": 1},\n\n7, {"a": 2}]')
    assert [(r.line, r.value) for r in read] == [(1, {"a": 1}), (2, None), (3, {"a": 2})]
    assert [r.line for r in records(tmp_path, "e.json", b'{"a": 1}\n{"a": 2}\n')] == [1, 2]


def test_json_that_does_not_parse_names_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d\.json:2:\d+: malformed JSON"):
        records(tmp_path, "d.json", b'[{"a": 1},\n{"a" 2}]')
    with pytest.raises(UserError, match="expected a JSON array"):
        records(tmp_path, "d.json", b'"a"')


def test_parquet_rows_are_numbered_and_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"a": list(range(9000))}), path)
    read = list(read_records(path))
    assert [(r.line, r.value) for r in read[4095:4097]] == [
        (4096, {"a": 4095}),
        (4097, {"a": 4096}),
    ]
    assert columns_of(path) == ("a",)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a Parquet file"):
        list(read_records(path))


def test_parquet_invalid_utf8_rejects_that_row_alone(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff", b"fine"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"t": texts}), tmp_path / "d.parquet")
    read = list(read_records(tmp_path / "d.parquet"))
    assert [r.error for r in read] == [None, "invalid UTF-8", None]


def test_text_is_a_record_a_line(tmp_path: Path) -> None:
    read = records(tmp_path, "d.txt", "one\r\n\n 漢字 \n".encode())
    assert [(r.line, r.value) for r in read] == [(1, {"text": "one"}), (3, {"text": " 漢字 "})]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("d.csv", b"", "the file is empty"),
        ("d.csv", b"a,a\n", "column 'a' occurs twice"),
        ("d.xlsx", b"x", "expected a file that ends in .csv"),
    ],
)
def test_a_file_of_no_use_is_one_clear_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        columns_of(tmp_path / name)


def test_a_missing_file_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n")
    with pytest.raises(UserError, match=r"tran\.csv: no such file\. That folder has train\.csv"):
        columns_of(tmp_path / "tran.csv")
    with pytest.raises(UserError, match="is missing too"):
        columns_of(tmp_path / "no" / "d.csv")


def test_large_fields_are_read(tmp_path: Path) -> None:
    assert len(str(records(tmp_path, "d.csv", b"a\n" + b"x" * 300_000)[0].value)) > 300_000


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_json_values_come_back(tmp_path_factory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps([{"v": value}]))
    assert [r.value for r in read_records(path)] == [{"v": value}]
