"""Texts in any encoding, tables with any separator, JSON in any notation: what is read is right."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.datasets.readers.read import Reading, columns_of, read_records, taken_as
from registry.datasets.readers.reading import encoding_of, looks_like, remedy
from registry.datasets.spec import DatasetSpec
from registry.errors import UserError

ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "gb18030")
FOUND = ENCODINGS[:-1]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\ufeff"), max_size=30)


def put(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def values(path: Path, reading: Reading | None = None) -> list[Any]:
    return [record.value for record in read_records(path, reading or Reading())]


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=15)
@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_any_text_comes_back_from_any_encoding(tmp_path_factory, encoding, texts) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [{"a number of columns": text} for text in texts]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    reading = None if encoding in FOUND else Reading(encoding)
    assert values(put(folder, "any.jsonl", lines.encode(encoding)), reading) == rows
    array = json.dumps(rows, ensure_ascii=False).encode(encoding)
    assert values(put(folder, "any.json", array), reading) == rows
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([list(rows[0]), *([t] for t in texts)])
    assert values(put(folder, "any.csv", out.getvalue().encode(encoding)), reading) == rows
    said = [text for text in texts if text.strip()]
    whole = "".join(f"begin {text}\n" for text in said).encode(encoding)
    read = [row["text"] for row in values(put(folder, "any.txt", whole), reading)]
    assert read == [f"begin {text}".rstrip("\r\n") for text in said]


def test_texts_longer_than_what_is_read_at_once_are_recoded_whole(tmp_path: Path) -> None:
    rows = [{"text": "日本語と😀" * 20_000}, {"text": "x" * 70_000}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for encoding in FOUND:
        assert values(put(tmp_path, "d.jsonl", lines.encode(encoding))) == rows


def test_what_is_no_text_in_its_encoding_rejects_its_row_alone(tmp_path: Path) -> None:
    lines = [json.dumps({"t": text}, ensure_ascii=False) + "\n" for text in "aéz"]
    torn = [line.encode("utf-16-le") for line in lines]
    torn[1] = torn[1].replace("é".encode("utf-16-le"), b"\x00\xd8")  # half of a surrogate pair
    read = list(read_records(put(tmp_path, "d.jsonl", b"".join(torn))))
    assert [(r.line, r.value) for r in read] == [(1, {"t": "a"}), (2, None), (3, {"t": "z"})]
    odd = "".join(lines).encode("shift_jis", "replace") + b'{"t": "\x81"}\n'
    read = list(read_records(put(tmp_path, "e.jsonl", odd), Reading("shift_jis")))
    assert [r.value is None for r in read] == [False, False, False, True]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "utf-8"),
        (b"a\0", "utf-8"),  # too little to tell
        (b"\0\0\0\0\0\0", "utf-8"),
        (b"a\0b\0c\0d\0", "utf-16-le"),
        (b"\0a\0b\0c\0d", "utf-16-be"),
        (b"plain text with one \0 in it", "utf-8"),
        ("漢字だけの文".encode("utf-16"), "utf-16"),
        ("a".encode("utf-32"), "utf-32"),
        (b"\xef\xbb\xbfa", "utf-8"),
    ],
)
def test_the_encoding_is_found_by_the_first_bytes(tmp_path: Path, data, encoding) -> None:
    assert encoding_of(put(tmp_path, "d.txt", data)) == encoding


def test_bytes_that_are_no_utf8_are_shown_as_they_may_be_meant() -> None:
    western = "Café crème".encode("cp1252").decode(errors="surrogateescape")
    assert looks_like(western) == "byte 0xe9; in windows-1252 it reads 'Café crème'"
    chinese = "我的银行卡".encode("gb18030").decode(errors="surrogateescape")
    assert "gb18030, shift_jis or another" in looks_like(chinese)
    assert looks_like("Café 漢字") == ""
    assert looks_like("half a pair \ud83d") == ""
    assert "windows-1252" in str(remedy("invalid UTF-8: byte 0xe9"))
    assert "* EXCLUDE (im)" in str(remedy("column 'im' holds raw bytes"))
    assert remedy("empty answer") is None


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@settings(max_examples=15)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_any_cells_come_back_by_any_usual_separator(tmp_path_factory, separator, rows) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([("text", "label"), *rows])
    path = put(tmp_path_factory.getbasetemp(), "cells.csv", out.getvalue())
    assert [tuple(row.values()) for row in values(path)] == rows
    assert columns_of(path) == ("text", "label")


def test_a_separator_is_another_one_only_where_that_fits_the_records(tmp_path: Path) -> None:
    ragged = put(tmp_path, "a.csv", "text;label\na;b;c\na;b;c\nd;e\n")
    assert columns_of(ragged) == ("text;label",)
    commas = put(tmp_path, "b.csv", "text,label\na;b,c\nd;e,f\n")
    assert values(commas) == [{"text": "a;b", "label": "c"}, {"text": "d;e", "label": "f"}]
    header = put(tmp_path, "c.csv", "question, in French;answer\na, b;c\nd;e\nf;g\n")
    assert columns_of(header) == ("question, in French", "answer")
    one = put(tmp_path, "d.csv", "text\na;b\nc;d\n")
    assert values(one) == [{"text": "a;b"}, {"text": "c;d"}]
    assert taken_as(one) == ()


def test_lines_are_counted_behind_excel_s_own_line(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", 'sep=;\r\ntext;label\r\n"a\r\nb";c\r\nd;e\r\n')
    assert [r.line for r in read_records(path)] == [3, 5]
    named = put(tmp_path, "b.csv", "sep=;\ntext,label\na,b\n")
    assert values(named, Reading(separator=",")) == [{"text": "a", "label": "b"}]


def test_a_value_in_a_column_without_a_name_is_a_reject(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "text,label,,\na,b,,\nc,d,x,\ne,f\n")
    assert [r.error for r in read_records(path)] == [None, "3 fields where the header has 2", None]
    assert taken_as(path) == ("columns without a name left out: 2",)
    index = put(tmp_path, "b.csv", ",text\n0,a\n")  # as pandas writes its index
    assert values(index) == [{"": "0", "text": "a"}]


@settings(max_examples=25)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=9),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
                ),
                max_leaves=6,
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=2,
        max_size=5,
    )
)
def test_objects_come_back_indented_or_as_python_prints_them(tmp_path_factory, rows) -> None:
    folder = tmp_path_factory.getbasetemp()
    indented = "\n".join(json.dumps(row, indent=1) for row in rows)
    assert values(put(folder, "o.jsonl", indented)) == rows
    assert values(put(folder, "o.json", indented)) == rows
    printed = "".join(f"{row!r}\n" for row in rows)
    assert values(put(folder, "p.jsonl", printed.encode("utf-8", "replace"))) == [
        json.loads(json.dumps(row)) for row in rows
    ]


def test_objects_over_several_lines_have_the_line_where_they_begin(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '\n{\n"a": 1\n},\n\n{"a": 2}\n{\n"a":\n3}\n')
    assert [(r.line, r.value) for r in read_records(path)] == [
        (2, {"a": 1}),
        (6, {"a": 2}),
        (7, {"a": 3}),
    ]
    broken = put(tmp_path, "b.jsonl", '{\n"a": 1\n}\n{\n"a": \n}\n')
    with pytest.raises(UserError, match=r"b\.jsonl:6:1: malformed JSON: Expecting value"):
        values(broken)
    together = put(tmp_path, "c.jsonl", '{\n"a": 1\n}\n{"a": 2} {"a": 3}\n')
    with pytest.raises(UserError, match=r"c\.jsonl:4:9: malformed JSON: Expecting an object on a"):
        values(together)


def test_a_first_line_that_is_broken_does_not_change_how_the_others_are_read(tmp_path) -> None:
    for first in ('{"a": 1, "b"', "{'a': 1", '{"a": 1} and more', "{1, 2}", '["a"]', "[[[["):
        read = list(read_records(put(tmp_path, "a.jsonl", first + '\n{"a": 2}\n')))
        assert [r.value for r in read] == [None, {"a": 2}], first


def test_what_python_prints_and_json_has_not_is_a_reject(tmp_path: Path) -> None:
    odd = ("{'a': {1, 2}}", "{'a': b'x'}", "{1: 2}", "{'a': 1j}", "{'a': open('x')}", "{'a': nan}")
    text = "{'a': 'it\\'s', 'b': (1, None)}\n" + "\n".join(odd) + '\n{"a": true}\n'
    read = list(read_records(put(tmp_path, "a.jsonl", text)))
    assert read[0].value == {"a": "it's", "b": [1, None]}
    assert [r.value for r in read[1:-1]] == [None] * len(odd)
    assert read[-1].value == {"a": True}


def test_an_object_longer_than_what_is_looked_at_is_one_object(tmp_path: Path) -> None:
    whole = json.dumps({"data": ["x" * 1000] * 1100}, indent=1)
    assert len(whole) > 1 << 20
    with pytest.raises(UserError, match="one JSON object with the keys data, not a list"):
        values(put(tmp_path, "a.json", whole))


@pytest.mark.parametrize("name", ["base64", "rot13", "no-such", "undefined"])
def test_an_encoding_of_no_texts_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="no encoding"):
        DatasetSpec(path="x", encoding=name)


@pytest.mark.parametrize("separator", ["", ";;", '"', "\n"])
def test_a_separator_is_one_character(separator: str) -> None:
    with pytest.raises(ValidationError, match="separator"):
        DatasetSpec(path="x", separator=separator)
