"""Rows by SQL: the same files give the same rows; nothing outside the workspace is in reach."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from registry.datasets.readers.read import read_records
from registry.datasets.sources import sql as query
from registry.datasets.sources.resolve import source_files, sources
from registry.datasets.sources.sql import query_file
from registry.datasets.spec import DatasetSpec
from registry.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "my 'own', place"
    (folder / "data").mkdir(parents=True)
    lines = [{"q": f"question {n}", "a": f"answer {n}", "n": n} for n in range(50)]
    (folder / "data" / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    teams = "".join(f"{n},t{n % 2}\n" for n in range(50))
    (folder / "data" / "y.csv").write_text("n,team\n" + teams)
    (tmp_path / "secret.csv").write_text("a\nsecret\n")
    (folder / "data" / "link.csv").symlink_to(tmp_path / "secret.csv")
    return folder


JOINED = """
    select q as input, a as output, team   -- both files
    from 'data/x.jsonl' join read_csv('data/y*.csv') using (n)
    where team = 't1';
"""


def test_a_query_is_a_dataset(root: Path) -> None:
    found = sources(DatasetSpec(sql=JOINED), root)
    (file,) = found.files
    assert found.name == "columns"
    assert file.label.startswith("sql-")
    assert file.path.parent == root / ".gapmend" / "cache" / "queries"
    records = list(read_records(file.path))
    assert len(records) == 25
    first = records[0].value or {}
    assert said(found, first) == ("question 1", "answer 1")
    assert found.format.meta(first) == '{"team": "t1"}'
    assert os.listdir(file.path.parent) == [file.path.name]  # noqa: PTH208 - hidden ones too


def said(found, record) -> tuple[str, ...]:
    return tuple(message.content for message in found.format.content(record).messages)


def test_the_same_files_give_the_same_bytes_and_others_another_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "_DONE", {})
    first = query_file(JOINED, root)
    runs: list[str] = []
    run = query._run

    def counted(sql: str, *given: Any) -> None:
        runs.append(sql)
        run(sql, *given)

    monkeypatch.setattr(query, "_run", counted)
    assert query_file(JOINED, root) == first
    assert not runs  # nothing has changed
    copied = tmp_path / "copy"
    shutil.copytree(root, copied)
    again = query_file(JOINED, copied)
    assert (again.name, again.read_bytes()) == (first.name, first.read_bytes())
    with (root / "data" / "y.csv").open("a") as file:
        file.write("3,t1\n")
    assert query_file(JOINED, root) != first
    assert len(runs) == 2


def test_rows_are_in_an_order_that_does_not_depend_on_the_engine(root: Path) -> None:
    sql = "select team as text, count(*) as n, list(q order by q) as qs from 'data/x.jsonl' "
    sql += "join 'data/y.csv' using (n) group by all order by random()"
    rows = [record.value for record in read_records(query_file(sql, root))]
    assert [row and row["text"] for row in rows] == ["t0", "t1"]


def test_each_split_may_have_a_query(root: Path) -> None:
    spec = DatasetSpec(
        sql={
            "test": "select q as input, a as output from 'data/x.jsonl' where n >= 40",
            "train": "select q as input, a as output from 'data/x.jsonl' where n < 40",
        }
    )
    files = source_files(spec, root)
    assert [(f.split, len(list(read_records(f.path)))) for f in files] == [
        ("train", 40),
        ("test", 10),
    ]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * fro x", r'"select \* fro x": sql: Parser Error: syntax error at or near "x"'),
        ("select nope from 'data/x.jsonl'", 'Binder Error: Referenced column "nope" not found'),
        ("select 1; select 2", "not a query; expected one SELECT"),
        ("", "sql names no file"),
        ("-- nothing", "not a query; expected one SELECT"),
        ("copy (select 1) to 'data/out.csv'", "not a query; expected one SELECT"),
        ("attach 'data/x.db'", "not a query; expected one SELECT"),
        ("select 1) to 'data/out.csv'; copy (select 2", "sql: Parser Error"),
        ("set enable_external_access = true", "not a query; expected one SELECT"),
        (
            "select * from '../secret.csv'",
            'Cannot access file "../secret.csv" - a query reads files that lie in the workspace',
        ),
        ("select * from 'data/link.csv'", "Permission Error: Cannot access file"),
        ("select * from '${GAPMEND_NONE}/x.csv'", "GAPMEND_NONE, which is not set"),
        ("select * from 'data/../../secret.csv'", "Permission Error: Cannot access file"),
        ("select * from read_text('/etc/hostname')", "Permission Error: Cannot access file"),
        ("select * from 'https://127.0.0.1:9/x.parquet'", "sql: "),
        ("select * from given", "Catalog Error: Table with name given does not exist"),
        ("select * from 'data/gone.csv'", "IO Error: No files found"),
    ],
)
def test_what_is_no_query_of_the_workspace_is_one_line(root: Path, sql: str, message: str) -> None:
    with pytest.raises((UserError, ValidationError), match=message) as raised:
        source_files(DatasetSpec(sql=sql), root)
    assert "\n" not in str(raised.value) or not sql
    assert not (root / "data" / "out.csv").exists()
    kept = root / ".gapmend/cache/queries"
    assert not kept.exists() or not any(kept.iterdir())


def test_modules_in_the_workspace_are_not_run(root: Path) -> None:
    (root / "duckdb.py").write_text("raise SystemExit('run')")
    (root / "json.py").write_text("raise SystemExit('run')")
    assert query_file("select 1 as text", root).is_file()


def test_a_folder_elsewhere_is_named_by_a_variable(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "else'where"
    elsewhere.mkdir()
    (elsewhere / "x.csv").write_text("text\none\n")
    monkeypatch.setenv("GAPMEND_ELSE", str(elsewhere))
    sql = "select * from read_csv('${GAPMEND_ELSE}/*.csv', delim = ',', header = true)"
    first = query_file(sql, root)
    assert [record.value for record in read_records(first)] == [{"text": "one"}]
    (elsewhere / "y.csv").write_text("text\ntwo\n")
    assert query_file(sql, root) != first
    with pytest.raises(UserError, match="Permission Error"):
        query_file("select * from '${GAPMEND_ELSE}/../secret.csv'", root)
    with pytest.raises(UserError) as raised:
        query_file("select * from '${GAPMEND_ELSE}/gone.csv'", root)
    assert '"${GAPMEND_ELSE}/gone.csv"' in str(raised.value)


@pytest.mark.parametrize("name", ["HF_TOKEN", "GAPMEND_OTHER"])
def test_a_variable_that_is_no_folder_is_in_no_row_and_no_message(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "made-up-key-of-a-service")
    with pytest.raises(UserError, match=name) as raised:
        query_file("select '${" + name + "}' as text", root)
    assert "made-up-key" not in str(raised.value)
    monkeypatch.setenv(name, "/made-up/key-of-a-service")
    with pytest.raises(UserError, match=name) as raised:
        query_file("select '${" + name + "}' as text", root)
    assert "made-up" not in str(raised.value)


def test_a_query_that_takes_too_much_memory_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "_MEMORY", "64MiB")
    sql = "select repeat(md5(i::varchar), 100000) as text from range(100) numbers(i)"
    with pytest.raises(UserError, match="sql: it takes more than 64MiB of memory") as raised:
        query_file(sql, root)
    assert "\n" not in str(raised.value)


def test_a_result_that_unpacks_to_far_more_is_refused_before_it_takes_memory(root: Path) -> None:
    long = query_file("select repeat('x', 2000000) as text from range(40) numbers(i)", root)
    with pytest.raises(UserError, match=r"bytes that unpack to \d+ in \d+ rows"):
        next(read_records(long))
