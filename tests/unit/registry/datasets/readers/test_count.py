"""How many records files have is told by what shows it, and else not told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from registry.datasets.readers.count import records_about


def test_lines_and_rows_are_counted(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.JSONL", tmp_path / "b.parquet"
    lines.write_bytes(b'{"a": 1}\n' * 7)
    parquet.write_table(pa.table({"a": range(5)}), table)
    assert records_about([lines, table]) == 12
    assert records_about([]) == 0


def test_what_does_not_show_it_is_not_guessed(tmp_path: Path) -> None:
    lines, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    broken, array = tmp_path / "c.parquet", tmp_path / "d.json"
    lines.write_bytes(b"{}\n")
    packed.write_bytes(gzip.compress(b"{}\n"))
    broken.write_bytes(b"PAR1 and nothing")
    array.write_bytes(b"[{}]\n")
    for other in (packed, broken, array, tmp_path / "gone.jsonl"):
        assert records_about([lines, other]) is None
