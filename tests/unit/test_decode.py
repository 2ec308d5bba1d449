"""The scanner of erasure's tests finds a text wherever it may hide, so that its silence counts."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from tests.support.decode import find

CANARY = "canary-Ω-4711"


def _parquet(path: Path) -> None:
    noise = [f"{CANARY} {number}" for number in range(50)]
    pq.write_table(pa.table({"n": range(50), "deep": [[{"x": t}] for t in noise]}), path,
                   compression="zstd")  # fmt: skip


def _meta(path: Path) -> None:
    meta = json.dumps({"inner": CANARY})  # escapes the Ω
    pq.write_table(pa.table({"meta": [meta]}), path, compression="zstd")


def _duckdb(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'x' || repeat(?, 1) AS text", [CANARY])


def _duckdb_log(path: Path) -> None:
    connection = duckdb.connect(str(path))
    connection.execute("PRAGMA disable_checkpoint_on_shutdown; CREATE TABLE t (text VARCHAR)")
    connection.execute("CHECKPOINT; INSERT INTO t VALUES (?)", [CANARY])
    connection.close()


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.pkl", CANARY * 20)


def _sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (name TEXT)")
    connection.execute("INSERT INTO runs VALUES (?)", [CANARY])
    connection.commit()
    connection.close()


def _zstd(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as out:
        out.write((CANARY * 9).encode())


WRITERS = {
    "plain text": lambda path: path.write_text(f"so {CANARY} it is"),
    "utf-16": lambda path: path.write_text(CANARY, "utf-16-be"),
    "json with escapes": lambda path: path.write_text(json.dumps({CANARY: 1})),
    "json lines": lambda path: path.write_text('{"a": 1}\n' + json.dumps(["k", CANARY]) + "\n"),
    "gzip": lambda path: path.write_bytes(gzip.compress(CANARY.encode() * 9)),
    "zstd": _zstd,
    "zip": _zip,
    "parquet": _parquet,
    "json in parquet": _meta,
    "safetensors": lambda path: save_file({"w": np.zeros(2)}, path, metadata={"note": CANARY}),
    "duckdb": _duckdb,
    "duckdb's log": _duckdb_log,
    "sqlite": _sqlite,
    "a file's name": lambda path: path.with_name(CANARY).write_text("x"),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_text_is_found(tmp_path: Path, what: str) -> None:
    WRITERS[what](tmp_path / "file.bin")
    assert find(tmp_path, CANARY)
    assert not find(tmp_path, "canary-Ω-4712")
