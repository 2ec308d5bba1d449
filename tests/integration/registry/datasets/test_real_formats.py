"""Real files of others, read as they are: every record a row, or a reject with its reason."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from registry.datasets.formats.turns import UnusableError
from registry.datasets.readers.read import read_records
from registry.datasets.sources.chunks import usable
from registry.datasets.sources.resolve import sources
from registry.datasets.spec import DatasetSpec
from registry.errors import UserError


def read(spec: DatasetSpec, root: Path) -> tuple[str, Counter[str]]:
    """Return the format and how many rows there are of each kind, and rejects by reason."""
    found = sources(spec, root)
    counted: Counter[str] = Counter()
    for file in found.files:
        for record in read_records(file.path):
            try:
                counted[usable(record, found.format, None).content.kind] += 1
            except UnusableError as error:
                counted[f"reject: {error.reason}"] += 1
    return found.name, counted


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("identity", {"sft": 91}),
        ("alpaca_en_demo", {"sft": 999}),
        ("glaive_toolcall_en_demo", {"sft": 300}),
        ("dpo_en_demo", {"preference": 300}),
        ("kto_en_demo", {"feedback": 300}),
    ],
)
def test_each_entry_of_a_llamafactory_folder(
    real_data: Path, tmp_path: Path, entry: str, expected: dict[str, int]
) -> None:
    spec = DatasetSpec(path=str(real_data / "llamafactory"), format="llamafactory", name=entry)
    assert read(spec, tmp_path) == ("llamafactory", expected)


def test_all_other_entries_are_one_line_each(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "llamafactory"
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
    told: Counter[str] = Counter()
    for name in info:
        spec = DatasetSpec(path=str(folder), format="llamafactory", name=name)
        try:
            sources(spec, tmp_path)
        except UserError as error:
            (line,) = str(error).splitlines()
            told[_why(line)] += 1
        else:
            told["here"] += 1
    expected = {"here": 5, "missing": 9, "hub": 78, "media": 9, "ranking": 2, "other hub": 1}
    assert told == expected


def _why(line: str) -> str:
    reasons = {
        "missing": "is missing. Put it in",
        "hub": "not in the cache, and the Hub isn't reached",  # tests have no network
        "media": "only text is read",
        "ranking": "ranking needs the columns chosen and rejected",  # LLaMA-Factory's too
        "other hub": "that hub isn't asked",
    }
    return next((name for name, said in reasons.items() if said in line), line)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("alpaca_en_demo.json", ("alpaca", {"sft": 999})),
        ("glaive_toolcall_en_demo.json", ("sharegpt", {"sft": 300})),
        ("dpo_en_demo.json", ("preference", {"preference": 300})),
        ("kto_en_demo.json", ("feedback", {"feedback": 300})),
    ],
)
def test_the_same_files_are_recognised_by_themselves_however_packed(
    real_data: Path, tmp_path: Path, file: str, expected: tuple[str, dict[str, int]]
) -> None:
    path = real_data / "llamafactory" / file
    assert read(DatasetSpec(path=str(path)), tmp_path) == expected
    (tmp_path / f"{file}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read(DatasetSpec(path="*.json.gz"), tmp_path) == expected
    lines = "".join(json.dumps(one) + "\n" for one in json.loads(path.read_bytes()))
    with pa.CompressedOutputStream(str(tmp_path / "rows.jsonl.zst"), "zstd") as out:
        out.write(lines.encode())
    assert read(DatasetSpec(path="rows.jsonl.zst"), tmp_path) == expected
    query = f"select * from 'rows.jsonl' where {_sure(expected[0])}"
    (tmp_path / "rows.jsonl").write_text(lines, "utf-8")
    name, kinds = read(DatasetSpec(sql=query), tmp_path)
    assert (name, kinds) == expected


def _sure(name: str) -> str:
    return "instruction is not null" if name == "alpaca" else "true"


def test_banking_by_a_folder_and_by_sql(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "banking77", tmp_path / "data")
    columns = {"input": "text", "output": "category"}
    assert read(DatasetSpec(path="data/*.csv", columns=columns), tmp_path) == (
        "columns",
        {"sft": 13_083},
    )
    sql = "select text as input, category as output from read_csv('data/t*.csv')"
    assert read(DatasetSpec(sql=sql), tmp_path) == ("columns", {"sft": 13_083})
    maths = DatasetSpec(path=str(real_data / "gsm8k"), columns={"input": "question"})
    with pytest.raises(UserError, match="no format fits this file"):
        read(maths, tmp_path)


@pytest.mark.parametrize("how", ["parquet", "saved"])
def test_what_datasets_writes_says_what_it_was_given(tmp_path: Path, how: str) -> None:
    """Json columns, which it makes of mixed types, and ClassLabel; `default` stays a number."""
    import datasets

    rows = [
        {
            "messages": [
                {"role": "user", "content": "add 2 and 2"},
                {"role": "assistant", "content": None, "tool_calls": [call(number)]},
            ],
            "tools": [tool("add", default=5), tool("say", default="five")],
            "team": 1,
        }
        for number in (2, "two")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.disable_progress_bars()
    made = datasets.load_dataset(
        "json",
        data_files=str(tmp_path / "rows.jsonl"),
        cache_dir=str(tmp_path / "cache"),
        split="train",
    ).cast_column("team", datasets.ClassLabel(names=["billing", "returns"]))
    if how == "parquet":
        made.to_parquet(str(tmp_path / "made.parquet"))
    else:
        made.save_to_disk(str(tmp_path / "made"))
    found = sources(DatasetSpec(path="made.parquet" if how == "parquet" else "made"), tmp_path)
    said = sources(DatasetSpec(path="rows.jsonl"), tmp_path)
    theirs, ours = (
        [record for file in one.files for record in read_records(file.path, file.reading)]
        for one in (said, found)
    )
    assert [one.error for one in ours] == [None, None]
    for row, read in zip(rows, ours, strict=True):
        wanted, got = (
            usable(theirs[read.line - 1], said.format, None),
            usable(read, found.format, None),
        )
        assert got.content == wanted.content
        assert json.loads(got.content.tools or "")[0]["function"]["parameters"]["default"] == 5
        assert read.value is not None
        assert read.value["team"] == "returns"
        assert row["tools"] == read.value["tools"]


def call(number: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "add", "arguments": {"a": number, "b": 2}}}


def tool(name: str, default: object) -> dict[str, object]:
    function = {"name": name, "parameters": {"type": "object", "default": default}}
    return {"type": "function", "function": function}
