"""Datasets of a Hub on the loopback device: pinned by commit, fetched by name, read offline."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loopback_hub import serving
from tests.support.called import Called, fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.loopback_hub import Hub

PROGRAM = """
import json, sys
from pathlib import Path
from registry.datasets.sources.resolve import source_files, sources
from registry.datasets.spec import DatasetSpec
from registry.errors import UserError
spec, root = DatasetSpec(**json.loads(sys.argv[1])), Path(sys.argv[2])
try:
    files = source_files(spec, root)
    found = sources(spec, root)
except UserError as error:
    sys.exit(f"UserError: {error}")
from registry.datasets.readers.read import read_records
rows = [r.value for f in found.files for r in read_records(f.path)]
print(json.dumps([[[f.label, f.split] for f in files], found.name, rows]))
"""
README = """---
configs:
- config_name: en
  data_files:
  - {split: train, path: "en/*.parquet"}
  - {split: test, path: "en/test.jsonl.gz"}
- config_name: zh
  data_files: "zh/rows.json"
---
# Rows
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "rows"
    for name in ("en", "zh"):
        (folder / name).mkdir(parents=True)
    pq.write_table(pa.table({"input": ["q1"], "output": ["a1"]}), folder / "en" / "1.parquet")
    pq.write_table(pa.table({"input": ["q2"], "output": ["a2"]}), folder / "en" / "2.parquet")
    packed = gzip.compress(b'{"input": "q3", "output": "a3"}\n')
    (folder / "en" / "test.jsonl.gz").write_bytes(packed)
    (folder / "zh" / "rows.json").write_text('[{"input": "\\u6f22", "output": "x"}]')
    (folder / "README.md").write_text(README)
    (folder / "rows.py").write_text("raise SystemExit('the script has run')")
    script = tmp_path / "script"
    script.mkdir()
    (script / "script.py").write_text("raise SystemExit('the script has run')")
    with serving(tmp_path / "hub") as served:
        served.add_folder("me/rows", folder, kind="dataset")
        served.add_folder("me/script", script, kind="dataset")
        yield served


def call(
    served: Hub, tmp_path: Path, /, *, endpoint: str = "", offline: bool = False, **spec: Any
) -> Called:
    root = tmp_path / "workspace"
    root.mkdir(exist_ok=True)
    told = {
        "HF_ENDPOINT": endpoint or served.endpoint,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    return fork(["-c", PROGRAM, json.dumps(spec), str(root)], environment=told)


def read(done: Called) -> tuple[list[list[str]], str, list[Any]]:
    assert done.code == 0, done.err
    files, name, rows = done.json()
    return files, name, rows


def line(done: Called) -> str:
    assert done.code == 1, done.out
    said = done.err.strip().splitlines()
    assert said[-1].startswith("UserError: "), done.err
    assert "Traceback" not in done.err
    return said[-1].removeprefix("UserError: ")


def fetched(hub: Hub) -> set[str]:
    """Names of the files that were asked for."""
    paths = [one["path"] for one in hub.requests if "/resolve/" in one["path"]]
    return {path.split("/resolve/")[1].partition("/")[2] for path in paths}


def test_a_subset_is_fetched_by_name_and_recorded_by_its_commit(hub: Hub, tmp_path: Path) -> None:
    commit = hub.head("me/rows", kind="dataset")
    splits = {"train": "train", "test": "test"}
    files, name, rows = read(call(hub, tmp_path, hub="me/rows", subset="en", splits=splits))
    assert files == [
        [f"me/rows@{commit}/en/1.parquet", "train"],
        [f"me/rows@{commit}/en/2.parquet", "train"],
        [f"me/rows@{commit}/en/test.jsonl.gz", "test"],
    ]
    assert name == "columns"
    assert [row["output"] for row in rows] == ["a1", "a2", "a3"]
    names = {path.partition("?")[0] for path in fetched(hub)}
    assert names == {"README.md", "en/1.parquet", "en/2.parquet", "en/test.jsonl.gz"}


def test_a_branch_moves_and_a_commit_does_not(hub: Hub, tmp_path: Path) -> None:
    old = hub.head("me/rows", kind="dataset")
    shutil.rmtree(tmp_path / "rows" / "en")
    (tmp_path / "rows" / "zh" / "rows.json").write_text('[{"input": "new", "output": "y"}]')
    hub.add_folder("me/rows", tmp_path / "rows", kind="dataset")
    new = hub.head("me/rows", kind="dataset")
    assert new != old
    now = read(call(hub, tmp_path, hub="me/rows", subset="zh", revision="main"))
    then = read(call(hub, tmp_path, hub="me/rows", subset="zh", revision=old))
    assert now[0] == [[f"me/rows@{new}/zh/rows.json", "train"]]
    assert then[0] == [[f"me/rows@{old}/zh/rows.json", "train"]]
    assert (now[2][0]["input"], then[2][0]["input"]) == ("new", "漢")


def test_offline_reads_what_was_fetched_whole_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    commit = hub.head("me/rows", kind="dataset")
    nothing = call(hub, tmp_path, hub="me/rows", subset="en", offline=True)
    assert line(nothing) == (
        "hub me/rows: not in the cache, and the Hub isn't reached. Ingest it once with a connection"
    )
    online = read(call(hub, tmp_path, hub="me/rows", subset="en"))
    asked = len(hub.requests)
    assert read(call(hub, tmp_path, hub="me/rows", subset="en", offline=True)) == online
    assert read(call(hub, tmp_path, hub="me/rows", subset="en", revision=commit)) == online
    assert len(hub.requests) == asked
    other = call(hub, tmp_path, hub="me/rows", subset="zh", offline=True)
    assert "zh/rows.json is not in the cache, and the Hub isn't reached" in line(other)


def test_a_hub_that_does_not_answer_is_as_good_as_none(hub: Hub, tmp_path: Path) -> None:
    online = read(call(hub, tmp_path, hub="me/rows", subset="en"))
    gone = "http://127.0.0.1:9"
    again = call(hub, tmp_path, hub="me/rows", subset="en", endpoint=gone)
    assert read(again) == online


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hub": "me/absent"}, "hub me/absent: no dataset on the Hub that you may read"),
        ({"hub": "me/rows", "revision": "v9"}, "hub me/rows@v9: no revision v9"),
        ({"hub": "me/rows"}, "several subsets; expected subset: one of en, zh"),
        ({"hub": "me/rows", "subset": "fr"}, "no subset 'fr'; expected one of en, zh"),
        (
            {"hub": "me/rows", "subset": "en", "splits": {"dev": "validation"}},
            "no split 'validation'; expected one of its splits: train, test",
        ),
        ({"hub": "me/script"}, "its rows are made by a script (script.py)"),
    ],
)
def test_what_is_not_there_is_one_line(
    hub: Hub, tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    assert message in line(call(hub, tmp_path, **spec))
    assert not any(path.endswith(".py") for path in fetched(hub))


def test_a_llamafactory_entry_may_be_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "workspace" / "lf"
    folder.mkdir(parents=True)
    entry = {
        "hf_hub_url": "me/rows",
        "ms_hub_url": "other/rows",
        "file_name": "beside.json",
        "subset": "en",
        "split": "test",
        "columns": {"prompt": "input", "response": "output"},
    }
    (folder / "dataset_info.json").write_text(json.dumps({"rows": entry}))
    found = call(hub, tmp_path, path="lf", format="llamafactory", name="rows")
    files, name, rows = read(found)
    commit = hub.head("me/rows", kind="dataset")
    assert files == [[f"me/rows@{commit}/en/test.jsonl.gz", "train"]]
    assert (name, rows[0]["output"]) == ("llamafactory", "a3")


def test_a_corrupt_download_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.faults.add("flip", "GET", r"/resolve/.*/zh/rows\.json")
    _, _, rows = read(call(hub, tmp_path, hub="me/rows", subset="zh"))
    assert rows == [{"input": "漢", "output": "x"}]
    (kept,) = (tmp_path / "cache" / "hub").glob("datasets--me--rows/snapshots/*/zh/rows.json")
    data = kept.read_bytes()
    kept.resolve().write_bytes(data.replace(b"x", b"y"))  # damaged where it lies
    _, _, rows = read(call(hub, tmp_path, hub="me/rows", subset="zh"))
    assert rows == [{"input": "漢", "output": "x"}]
