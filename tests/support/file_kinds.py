"""Files as people have them: what each kind is, for tests and for the table in the docs.

Each is written with the same two rows, `ROWS`, as far as it can hold them.
"""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ROWS = [
    {"text": "Où est ma carte, s'il vous plaît ?", "label": "carte"},
    {"text": "Le prélèvement de 1,50 € est-il réglé ?", "label": "prélèvement"},
]
COLUMNS = {"input": "text", "output": "label"}


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes:
        title: what it is, for people.
        name: of the file.
        data: its bytes.
        spec: what the spec has to say for it to be read.
        is_read: whether it is, with all of `ROWS`.
    """

    title: str
    name: str
    data: bytes
    spec: Mapping[str, Any] = field(default_factory=dict)
    is_read: bool = True

    def write(self, folder: Path) -> Path:
        """Write it into a folder of its own."""
        path = folder / self.name
        path.write_bytes(self.data)
        return path


def _csv(separator: str = ",", *, tail: str = "", head: str = "", end: str = "\n") -> str:
    """Return the rows as CSV; `tail` is behind every line."""
    lines = [row.values() for row in ({"text": "text", "label": "label"}, *ROWS)]
    quoted = [
        separator.join(f'"{cell}"' if separator in cell else cell for cell in line) + tail
        for line in lines
    ]
    return head + end.join(quoted) + end


def _lines(write: Callable[[Any], str], **more: Any) -> str:
    return "".join(write(row | more) + "\n" for row in ROWS)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _indented(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _parquet(table: pa.Table, features: Mapping[str, Any] | None = None) -> bytes:
    out = io.BytesIO()
    pq.write_table(_described(table, features), out)
    return out.getvalue()


def _stream(table: pa.Table, features: Mapping[str, Any] | None = None) -> bytes:
    out = io.BytesIO()
    described = _described(table, features)
    with pa.ipc.new_stream(out, described.schema) as file:
        file.write_table(described)
    return out.getvalue()


def _described(table: pa.Table, features: Mapping[str, Any] | None) -> pa.Table:
    """Write features beside the schema, as `datasets` does."""
    if features is None:
        return table
    said = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": said})


def _column(name: str) -> list[str]:
    return [row[name] for row in ROWS]


_TEXT = {"dtype": "string", "_type": "Value"}
_CLASSES = {"text": _TEXT, "label": {"names": ["prélèvement", "carte"], "_type": "ClassLabel"}}
_NUMBERED = pa.table({"text": _column("text"), "label": pa.array([1, 0], pa.int64())})
_AS_JSON = pa.table(
    {
        "text": pa.array([_json(one) for one in _column("text")], pa.json_()),
        "label": _column("label"),
    }
)
_OF_JSON = {"text": {"_type": "Json"}, "label": _TEXT}


def _bytes(encoding: str) -> bytes:
    texts = pa.array([one.encode(encoding) for one in _column("text")], pa.binary())
    return _parquet(pa.table({"text": texts, "label": _column("label")}))


def _with_images() -> bytes:
    pictures = pa.array([b"\x89PNG\r\n", b"\x89PNG\r\n"], pa.binary())
    return _parquet(pa.table({name: _column(name) for name in COLUMNS.values()} | {"im": pictures}))


KINDS = (
    FileKind("CSV in UTF-8, as Excel marks it", "mail.csv", _csv().encode("utf-8-sig")),
    FileKind("CSV in UTF-16 (Excel's “Unicode text”)", "mail.csv", _csv("\t").encode("utf-16")),
    FileKind(
        "JSON lines in UTF-16 without a mark", "mail.jsonl", _lines(_json).encode("utf-16-le")
    ),
    FileKind("text in UTF-32", "mail.csv", _csv().encode("utf-32")),
    FileKind("CSV in Windows-1252 (Latin-1)", "mail.csv", _csv().encode("cp1252"), is_read=False),
    FileKind(
        "CSV in Windows-1252, named",
        "mail.csv",
        _csv().encode("cp1252"),
        {"encoding": "windows-1252"},
    ),
    FileKind(
        "JSON lines in Windows-1252",
        "mail.jsonl",
        _lines(_json).encode("cp1252"),
        is_read=False,
    ),
    FileKind("semicolons, decimal commas", "mail.csv", _csv(";").encode()),
    FileKind("Excel's line `sep=;`", "mail.csv", _csv(";", head="sep=;\r\n", end="\r\n").encode()),
    FileKind("tabs in a .csv", "mail.csv", _csv("\t").encode()),
    FileKind("bars", "mail.csv", _csv("|").encode()),
    FileKind("commas in a .tsv", "mail.tsv", _csv().encode()),
    FileKind("another separator", "mail.csv", _csv("#").encode(), is_read=False),
    FileKind("another separator, named", "mail.csv", _csv("#").encode(), {"separator": "#"}),
    FileKind("trailing empty columns", "mail.csv", _csv(tail=",,,").encode()),
    FileKind("a column named twice", "mail.csv", b"text,label,label\na,b,c\n", is_read=False),
    FileKind("a line of empty cells first", "mail.csv", b",,\n" + _csv().encode(), is_read=False),
    FileKind("a quote that is never closed", "mail.csv", b'text,label\na,"b\nc,d\n', is_read=False),
    FileKind("JSON lines, indented", "mail.jsonl", _lines(_indented).encode()),
    FileKind(
        "objects with commas between them", "mail.jsonl", ",\n".join(map(_json, ROWS)).encode()
    ),
    FileKind("a JSON array in a .jsonl", "mail.jsonl", _indented(ROWS).encode()),
    FileKind("JSON lines in a .json", "mail.json", _lines(_json).encode()),
    FileKind("single quotes, as Python prints", "mail.jsonl", _lines(repr, n=None).encode()),
    FileKind(
        "one object around the rows", "mail.json", _indented({"d": ROWS}).encode(), is_read=False
    ),
    FileKind("no JSON", "mail.jsonl", b"{text: a}\n{text: b}\n", is_read=False),
    FileKind("a column of bytes that are UTF-8", "mail.parquet", _bytes("utf-8")),
    FileKind("a column of other bytes", "mail.parquet", _bytes("cp1252"), is_read=False),
    FileKind(
        "a column of other bytes, named",
        "mail.parquet",
        _bytes("cp1252"),
        {"encoding": "windows-1252"},
    ),
    FileKind("a column of pictures", "mail.parquet", _with_images(), is_read=False),
    FileKind("`datasets`' Json, in Parquet", "mail.parquet", _parquet(_AS_JSON, _OF_JSON)),
    FileKind("`datasets`' Json, saved to disk", "mail.arrow", _stream(_AS_JSON, _OF_JSON)),
    FileKind("`datasets`' ClassLabel", "mail.parquet", _parquet(_NUMBERED, _CLASSES)),
    FileKind("an Excel file called .csv", "mail.csv", b"PK\x03\x04\x14\0\x06\0", is_read=False),
    FileKind("gzip without .gz", "mail.csv", gzip.compress(_csv().encode()), is_read=False),
    FileKind("Parquet called .jsonl", "mail.jsonl", _parquet(_NUMBERED), is_read=False),
    FileKind(
        "a Git LFS pointer",
        "mail.parquet",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        is_read=False,
    ),
    FileKind("a web page", "mail.json", b"<!DOCTYPE html>\n<html></html>\n", is_read=False),
)
"""Those of the table, in its order."""
