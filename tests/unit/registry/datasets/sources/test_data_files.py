"""What a path means: a file, a folder, a glob; in a fixed order, and nothing left out silently."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from registry.datasets.sources.files import data_files
from registry.datasets.sources.resolve import source_files, sources
from registry.datasets.spec import DatasetSpec
from registry.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "data/b.jsonl",
        "data/a.csv",
        "data/more/c.parquet",
        "data/.hidden.jsonl",
        "data/.cache/d.jsonl",
        "data/more/z.jsonl.gz",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


def labels(text: str, root: Path) -> list[str]:
    found = data_files(text, root)
    assert all(path.is_file() for path, _ in found)
    return [name for _, name in found]


EVERY = ["data/a.csv", "data/b.jsonl", "data/more/c.parquet", "data/more/z.jsonl.gz"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data", EVERY),
        ("data/", EVERY),
        ("./data", EVERY),
        ("data/*.jsonl", ["data/b.jsonl"]),
        ("data/[ab].*", ["data/a.csv", "data/b.jsonl"]),
        ("data/**/*", EVERY),
        ("data/**/*.jsonl.gz", ["data/more/z.jsonl.gz"]),
        ("data/*", ["data/a.csv", "data/b.jsonl"]),  # a glob means files, not folders
        ("*/more/?.parquet", ["data/more/c.parquet"]),
        ("data/b.jsonl", ["data/b.jsonl"]),
    ],
)
def test_folders_and_globs_are_files_in_order(root: Path, text: str, expected: list[str]) -> None:
    assert labels(text, root) == expected


def test_other_folders_are_recorded_without_where_they_are(
    root: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert labels(f"{root}/data/*.csv", elsewhere) == ["data/a.csv"]
    assert labels(f"{root}/data", elsewhere) == EVERY
    assert labels(f"{root}/data", root) == EVERY
    monkeypatch.setenv("PLACE", str(root / "data"))
    assert labels("${PLACE}/*.csv", elsewhere) == ["${PLACE}/a.csv"]
    assert labels("${PLACE}", elsewhere) == [n.replace("data", "${PLACE}") for n in EVERY]


def test_a_file_with_a_wildcard_in_its_name_is_that_file(root: Path) -> None:
    (root / "data" / "x[1].csv").write_text("")
    (root / "data" / "x1.csv").write_text("")
    assert labels("data/x[1].csv", root) == ["data/x[1].csv"]


def test_a_missing_file_is_left_to_whoever_reads_it(root: Path) -> None:
    assert data_files("gone.csv", root) == ((root / "gone.csv", "gone.csv"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data/*.tsv", r"^data/\*\.tsv: no file is there; expected files that end in \.csv"),
        ("empty/", r"^empty/: no file is there"),
        ("gone/*.csv", r"^gone/\*\.csv: no file is there"),
        ("mixed", r"^mixed: not data files that can be read: LICENSE, README\.md; expected"),
    ],
)
def test_what_matches_nothing_or_too_much_is_one_line(root: Path, text: str, message: str) -> None:
    (root / "empty").mkdir()
    (root / "mixed").mkdir()
    for name in ("README.md", "a.csv", "LICENSE"):
        (root / "mixed" / name).write_text("x")
    with pytest.raises(UserError, match=message) as raised:
        data_files(text, root)
    assert "\n" not in str(raised.value)


def test_a_link_back_up_is_followed_once(root: Path) -> None:
    (root / "data" / "more" / "up").symlink_to(root / "data")
    assert labels("data", root) == EVERY


def test_what_datasets_saves_beside_its_rows_is_left_out(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    table = pa.table({"text": ["one", "two"]})
    with pa.ipc.new_stream(str(saved / "data-00000-of-00001.arrow"), table.schema) as out:
        out.write_table(table)
    for name in ("dataset_info.json", "state.json"):
        (saved / name).write_text("{}")
    found = sources(DatasetSpec(path="saved"), tmp_path)
    assert [f.label for f in found.files] == ["saved/data-00000-of-00001.arrow"]
    assert found.name == "text"
    (tmp_path / "both").mkdir()
    saved.rename(tmp_path / "both" / "train")
    (tmp_path / "both" / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    with pytest.raises(UserError, match=r"path: \{train: both/train, test: …\}"):
        data_files("both/", tmp_path)


def test_a_llamafactory_folder_is_told_from_a_folder_of_files(root: Path) -> None:
    (root / "data" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="Set format: llamafactory, and name"):
        data_files("data", root)


def test_each_split_may_be_a_folder_and_the_types_mixed(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
    (tmp_path / "train" / "a.csv").write_text("input,output\nq,a\n")
    (tmp_path / "train" / "b.jsonl").write_text('{"input": "q", "output": "a"}\n')
    (tmp_path / "test" / "c.csv").write_text("input,output\nq,a\n")
    spec = DatasetSpec(path={"test": "test/*", "train": "train"})
    found = sources(spec, tmp_path)
    assert [(f.label, f.split) for f in found.files] == [
        ("train/a.csv", "train"),
        ("train/b.jsonl", "train"),
        ("test/c.csv", "test"),
    ]
    assert (found.name, found.why) == ("columns", "its first record has input and output")
    (tmp_path / "test" / "d.csv").write_text("input,answer\nq,a\n")
    with pytest.raises(UserError, match=r"test/d\.csv:1: no column 'output'"):
        sources(spec, tmp_path)


def test_the_first_readable_record_of_any_file_decides(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text('oops\n{"text": "x"}\n')
    assert sources(DatasetSpec(path="*.jsonl"), tmp_path).name == "text"
    (tmp_path / "b.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(UserError, match=r"b\.jsonl: no format fits.*prompt-only form"):
        sources(DatasetSpec(path="*.jsonl"), tmp_path)
    assert source_files(DatasetSpec(path="*.jsonl"), tmp_path)
