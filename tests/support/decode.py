"""Find a text in every file below a folder, however it is encoded there.

Text in compressed Parquet can't be seen by a plain search: files are told by their first bytes,
decoded, and what comes out is looked through again.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq


def find(root: Path, text: str) -> set[str]:
    """Return `path: how` of every place below `root` where the text is, names of files too."""
    found = set()
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        if text in place:
            found.add(f"{place}: name")
        if path.is_file():
            found |= {f"{place}: {how}" for how in _in_file(path, text)}
    return found


def _in_file(path: Path, text: str) -> set[str]:
    data = path.read_bytes()
    found = set(_in_bytes(data, text))
    if data[8:12] == b"DUCK":
        found |= set(_in_duckdb(path, text))
    if data.startswith(b"SQLite format 3"):
        found |= set(_in_sqlite(path, text))
    return found


def _in_bytes(data: bytes, text: str) -> Iterator[str]:
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        if text.encode(encoding) in data:
            yield encoding
    for start, name, opened in _OPENED:
        if data.startswith(start):
            yield from (f"{name} {how}" for how in opened(data, text))
            return
    if data[8:9] == b"{":  # a safetensors file: the length of its header, then the header
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        yield from (f"header {how}" for how in _in_json(header, text))
    else:
        yield from _in_json(data, text)


def _in_parquet(data: bytes, text: str) -> Iterator[str]:
    with pq.ParquetFile(io.BytesIO(data)) as file:
        for name in file.schema_arrow.names:
            if _holds(file.read(columns=[name]).to_pylist(), text):
                yield name
        if text in str(file.metadata.metadata):
            yield "notes"


def _in_arrow(data: bytes, text: str) -> Iterator[str]:
    if _holds(pa.ipc.open_file(io.BytesIO(data)).read_all().to_pylist(), text):
        yield "lines"


def _in_gzip(data: bytes, text: str) -> Iterator[str]:
    yield from _in_bytes(gzip.decompress(data), text)


def _in_zstd(data: bytes, text: str) -> Iterator[str]:
    with pa.CompressedInputStream(pa.py_buffer(data), "zstd") as stream:
        yield from _in_bytes(stream.read(), text)


def _in_zip(data: bytes, text: str) -> Iterator[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for name in file.namelist():
            yield from _in_bytes(file.read(name), text)


_OPENED = (
    (b"PAR1", "parquet", _in_parquet),
    (b"ARROW1", "arrow", _in_arrow),
    (b"\x1f\x8b", "gzip", _in_gzip),
    (b"\x28\xb5\x2f\xfd", "zstd", _in_zstd),
    (b"PK\x03\x04", "zip", _in_zip),
)


def _in_json(data: bytes, text: str) -> Iterator[str]:
    """JSON, or a JSON value a line: an escape may hide a text from a plain search."""
    for part in (data, *data.splitlines()):
        if part[:1] not in (b"{", b"[", b'"'):
            continue
        try:
            value = json.loads(part)
        except ValueError:
            continue
        if _holds(value, text):
            yield "json"
            return


def _in_duckdb(path: Path, text: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for one in (path, path.with_name(f"{path.name}.wal")):
            if one.exists():
                shutil.copy(one, folder)
        connection = duckdb.connect(str(Path(folder) / path.name))
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()")
        for schema, table in tables.fetchall():
            if _holds(connection.execute(f'FROM "{schema}"."{table}"').fetchall(), text):
                yield f"duckdb {table}"
        if _holds(connection.execute("SELECT sql FROM duckdb_views()").fetchall(), text):
            yield "duckdb views"
        connection.close()


def _in_sqlite(path: Path, text: str) -> Iterator[str]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        if _holds(connection.execute(f'SELECT * FROM "{table}"').fetchall(), text):
            yield f"sqlite {table}"
    connection.close()


def _holds(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return text in value or _inner(value, text)
    if isinstance(value, bytes):
        return next(_in_bytes(value, text), None) is not None
    if isinstance(value, dict):
        return any(_holds(part, text) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return any(_holds(part, text) for part in value)
    return False


def _inner(value: str, text: str) -> bool:
    """A text may be JSON in turn, as the column `meta` is."""
    if value[:1] not in ("{", "[", '"'):
        return False
    try:
        inner = json.loads(value)
    except ValueError:
        return False
    return inner != value and _holds(inner, text)
