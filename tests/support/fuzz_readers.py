"""A fuzzer over every reader and what comes after it, with atheris (not among the tests).

    pip install atheris, then: python -m tests.support.fuzz_readers [SECONDS]

The first byte says which kind of file the rest is. Whatever the bytes are, reading ends with
records, rejects or one `UserError` of one line; anything else is a finding, whose input atheris
writes to a file. What is read goes through format detection, the format, and the row's hash.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped] # not among the dependencies
import pyarrow as pa
import pyarrow.parquet as pq

with atheris.instrument_imports(include=["registry"]):
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.readers.read import columns_of, read_records
    from registry.datasets.sources.chunks import usable
    from registry.datasets.sources.resolve import sources
    from registry.datasets.spec import DatasetSpec
    from registry.errors import UserError

SUFFIXES = (
    *(".csv", ".tsv", ".json", ".jsonl", ".txt", ".parquet", ".arrow", ".feather"),
    *(".csv.gz", ".json.gz", ".jsonl.gz", ".txt.gz", ".jsonl.zst", ".json.zst"),
)
_PLACE = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 - not a file that others read
RECORDS = (
    b'{"instruction": "i", "input": "q", "output": "a", "history": [["a", "b"]]}\n',
    b'{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}\n',
    (
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, '
        b'"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}, '
        b'{"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "1"}]}, '
        b'{"role": "assistant", "content": "a", "weight": 0}], "tools": [{"name": "f"}]}\n'
    ),
    b'{"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}\n',
    b'{"prompt": "q", "completion": "a", "label": true, "more": {"a": [1, 2.5, null]}}\n',
    b'{"text": "\\u00e9\\ud83d\\ude00"}\n',
)


def try_one(data: bytes) -> None:
    """Read the bytes as a file, and make rows of its records."""
    if not data:
        return
    path = _PLACE / f"x{SUFFIXES[data[0] % len(SUFFIXES)]}"
    path.write_bytes(data[1:])
    try:
        columns_of(path)
        records = list(read_records(path))
        form = sources(DatasetSpec(path=path.name), _PLACE).format
    except UserError as error:
        if "\n" in str(error):
            message = f"more than one line: {error}"
            raise AssertionError(message) from error
        return
    for record in records:
        if (record.value is None) == (record.error is None):
            message = f"neither a value nor an error: {record}"
            raise AssertionError(message)
        try:
            usable(record, form, None)
        except UnusableError:
            continue


def seeds(folder: Path) -> None:
    """Write a whole file of each kind, for the fuzzer to start from."""
    table = pa.table({"text": ["one", None, "three"], "m": [[{"r": "x"}], [], None]})
    lines = b"".join(RECORDS)
    array = b"[" + b",".join(RECORDS) + b"]"
    made = dict.fromkeys((".jsonl", ".txt"), lines) | {".json": array}
    made |= {".csv": b'input,output\n"a\nb",1\n', ".tsv": b"input\toutput\na\t1\n"}
    packed = {f"{suffix}.gz": gzip.compress(data) for suffix, data in made.items()}
    for suffix, data in {".jsonl.zst": lines, ".json.zst": array}.items():
        with pa.CompressedOutputStream(str(folder / "packed"), "zstd") as out:
            out.write(data)
        packed[suffix] = (folder / "packed").read_bytes()
    (folder / "packed").unlink()
    parquet, file, stream = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    for out, make in ((file, pa.ipc.new_file), (stream, pa.ipc.new_stream)):
        with make(out, table.schema) as writer:
            writer.write_table(table)
    tables = {".parquet": parquet, ".feather": file, ".arrow": stream}
    whole = made | packed | {suffix: out.getvalue() for suffix, out in tables.items()}
    for number, suffix in enumerate(SUFFIXES):
        if suffix in whole:
            (folder / f"seed{suffix}").write_bytes(bytes([number]) + whole[suffix])
    for number, record in enumerate(RECORDS):
        kind = SUFFIXES.index(".jsonl")
        (folder / f"record{number}").write_bytes(bytes([kind]) + record)


def main() -> None:
    """Fuzz for so many seconds, by default ten minutes."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "600"
    corpus = _PLACE / "corpus"
    corpus.mkdir()
    seeds(corpus)
    options = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=30", "-rss_limit_mb=3000"]
    atheris.Setup(
        [sys.argv[0], *options, f"-seed={os.environ.get('SEED', '1')}", str(corpus)], try_one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
