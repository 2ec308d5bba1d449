"""An append gives what a whole ingest gives: the same versions, files and index, and less work."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ingest import ingest
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.versions import make as new_version
from registry.datasets.versions.append_index import open_index
from registry.datasets.versions.refs import read_refs, refs_paths
from registry.upkeep.fsck import fsck
from tests.support.plain_rows import load_rows

SPEC = """\
bases: {{nano: {{model: nano}}}}
datasets:
  rows: {{path: {path}, format: prompt_completion, allow_rejects: 1.0, split: {split}}}
  other: {{path: other.jsonl, format: prompt_completion}}
capabilities: {{c: {{data: rows, answer: exact, goal: 0.8}}}}
train: {{base: nano}}
"""
WORDS = [f"w{number}" for number in range(15)]
ONE_FOLDER = "data"
TWO_FOLDERS = "{train: data/train, test: data/zest}"


def line(topic: int, variant: int, answer: int) -> str:
    """A record; variants of one topic are near one another, one after the other."""
    words = [f"{word}{topic}" for word in WORDS * 2]
    words[: 2 * variant] = [f"{word}{topic}x" for word in WORDS[: 2 * variant]]
    record = {"prompt": " ".join(words), "completion": f"a{answer}", "topic": topic % 2}
    return json.dumps(record)


@dataclass(frozen=True)
class Step:
    """What happens to the folder before an ingest."""

    name: str  # of a file: those that sort last are appended
    lines: tuple[str, ...]  # none: the file is removed


records = st.builds(line, st.integers(0, 5), st.integers(0, 3), st.integers(0, 1))
contents = st.lists(records | st.just("{broken"), max_size=9).map(tuple)
names = st.sampled_from(("train/a", "train/z", "zest/a", *(f"zest/z{n}" for n in range(9))))
steps = st.lists(st.builds(Step, names, contents), min_size=1, max_size=5)


def workspace(folder: Path, path: str, split: str = "{dev: 2, test: 1}") -> OpenWorkspace:
    folder.mkdir()
    (folder / "other.jsonl").write_text("\n".join(line(n, 0, 0) for n in range(3)))
    for name in ("train", "zest"):
        (folder / "data" / name).mkdir(parents=True)
        (folder / "data" / name / "0.jsonl").write_text(line(90, 0, 0))
    (folder / "gapmend.yaml").write_text(SPEC.format(path=path, split=split))
    return OpenWorkspace.open(folder)


def take(ws: OpenWorkspace, step: Step) -> dict[str, Any]:
    """Write the file, ingest, and return all that is known of the version."""
    path = ws.root / "data" / f"{step.name}.jsonl"
    if step.lines:
        path.write_text("\n".join(step.lines))
    else:
        path.unlink(missing_ok=True)
    (report,) = ingest(ws, Ui(), ["rows"]).datasets
    version = ws.store.get("dataset_version", report.version_id)
    manifest = ws.store.manifest(version)
    rejects = version.path / "rejects.parquet"
    return {
        "id": report.version_id,
        "refs": read_refs(refs_paths(ws.store, version)).to_pylist(),
        "meta": {key: said for key, said in manifest["meta"].items() if key != "created_at"},
        "report": report.facts,
        "rows": [one for one in manifest["parents"] if one["role"] == "rows"],
        "rejects": _rejects(rejects) if rejects.is_file() else [],
    }


def _rejects(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read().to_pylist()


def index_of(ws: OpenWorkspace, version_id: str) -> dict[str, Any]:
    index = open_index(ws.store, version_id)
    assert index is not None
    parts = [index.part(number) for number in range(len(index.facts.parts))]
    return {
        "blocks": index.facts.blocks,
        "covers": index.facts.covers,
        "groups": index.groups.tolist(),
        "hashes": np.concatenate([part[0] for part in parts]).tolist(),
        "uids": np.concatenate([part[1] for part in parts]).tolist(),
        "keys": np.concatenate([part[2] for part in parts], axis=1).tolist(),
        "gone": sorted(
            one
            for one, place in zip(
                index.former.hashes.tolist(), index.find(index.former.hashes).tolist(), strict=True
            )
            if place < 0  # one that came again may stay in the list
        ),
    }


@pytest.fixture
def appends(monkeypatch) -> list[int]:
    """Small blocks; and the number of files that each append was told to pass over."""
    monkeypatch.setattr("registry.datasets.versions.digest.BLOCK", 4)
    monkeypatch.setattr("registry.datasets.versions.append_version.BLOCK", 4)
    monkeypatch.setattr("registry.datasets.versions.digest._AT_ONCE", 2)
    seen: list[int] = []
    real = new_version.append_version

    def append(*given: Any) -> Any:
        seen.append(given[4])
        return real(*given)

    monkeypatch.setattr(new_version, "append_version", append)
    return seen


def run_history(folder: Path, path: str, history: list[Step]) -> None:
    """Take the steps in two workspaces, of which one has to read everything anew each time."""
    appended, anew = workspace(folder / "a", path), workspace(folder / "b", path)
    for ws in (appended, anew):
        ingest(ws, Ui(), ["other"])
        ingest(ws, Ui(), ["rows"])
    for step in history:
        shutil.rmtree(anew.state / "cache" / "rows", ignore_errors=True)
        found, wanted = take(appended, step), take(anew, step)
        assert found == wanted
        if open_index(anew.store, wanted["id"]) and open_index(appended.store, found["id"]):
            assert index_of(appended, found["id"]) == index_of(anew, wanted["id"])
    assert not fsck(appended.store, appended.catalog).findings
    shutil.rmtree(folder)


FOLDERS = pytest.mark.parametrize(
    "path", [ONE_FOLDER, pytest.param(TWO_FOLDERS, marks=pytest.mark.soak)]
)
DRAWN = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FOLDERS
@settings(DRAWN, max_examples=5)
@given(history=steps)
@pytest.mark.usefixtures("appends")
def test_a_history_is_the_same_appended_or_read_anew(
    tmp_path_factory, path: str, history: list[Step]
) -> None:
    run_history(tmp_path_factory.mktemp("history"), path, history)


@pytest.mark.soak
@FOLDERS
@settings(DRAWN, max_examples=100)
@given(history=steps)
@pytest.mark.usefixtures("appends")
def test_a_hundred_histories_are(tmp_path_factory, path: str, history: list[Step]) -> None:
    run_history(tmp_path_factory.mktemp("history"), path, history)


def test_what_is_appended_shares_the_files_that_were_there(tmp_path, appends) -> None:
    ws = workspace(tmp_path / "w", ONE_FOLDER)
    made = [
        take(ws, Step("zest/1", tuple(line(n, 0, 0) for n in range(8)))),
        take(ws, Step("zest/2", (line(20, 0, 0), line(21, 0, 0)))),
        take(ws, Step("zest/3", (line(22, 0, 0), line(20, 0, 0), line(3, 1, 0)))),
        take(ws, Step("zest/4", (line(23, 0, 0), line(0, 0, 0)))),
    ]
    assert appends == [3, 4, 5]
    first, second, third, fourth = (
        [path.stat().st_ino for path in refs_paths(ws.store, ws.store.get("dataset_version", one))]
        for one in [one["id"] for one in made]
    )
    assert second[0] == third[0] == first[0]  # the same file, with a name in each version
    assert second[1] != third[1]  # the last one grew: it was small
    assert fourth[0] != first[0]  # a row of it stands in a new file too
    assert fourth[1] == third[1]
    assert [len(one) for one in (first, second, third, fourth)] == [1, 2, 2, 3]
    again = [ref for ref in made[3]["refs"] if len(ref["sources"]) > 1]
    assert [[one["file"] for one in ref["sources"]] for ref in again] == [
        ["data/train/0.jsonl", "data/zest/0.jsonl"],
        ["data/zest/1.jsonl", "data/zest/4.jsonl"],
        ["data/zest/2.jsonl", "data/zest/3.jsonl"],
    ]
    assert [len(load_rows(ws.store, one["id"])) for one in made] == [9, 11, 13, 14]
    assert not fsck(ws.store, ws.catalog).findings


def test_nothing_but_known_rows_is_the_same_version(tmp_path, appends) -> None:
    ws = workspace(tmp_path / "w", ONE_FOLDER)
    first = take(ws, Step("zest/1", (line(1, 0, 0),)))
    second = take(ws, Step("zest/2", (line(1, 0, 0),)))
    third = take(ws, Step("zest/3", (line(2, 0, 0),)))
    assert first["id"] == second["id"] != third["id"]
    assert appends == [3, 3]  # the third is appended to the first: the second made no index
    assert sum(len(ref["sources"]) for ref in third["refs"]) == 5


def test_rows_that_were_erased_do_not_come_back_by_an_append(tmp_path, appends) -> None:
    from pipeline.verbs.erase import erase

    ws = workspace(tmp_path / "w", ONE_FOLDER)
    ingest(ws, Ui(), ["other"])
    take(ws, Step("zest/1", (line(10, 0, 0),)))
    erase(ws, Ui(), "dataset = 'other'", [], reason="asked to", do=True)
    made = take(ws, Step("zest/2", (line(1, 0, 0), line(11, 0, 0))))  # the first was in other
    assert [ref["source_line"] for ref in made["refs"]][-1:] == [2]
    assert len(made["refs"]) == 3
    assert made["report"]["erased"] == 1
    assert not appends


def test_an_erased_row_leaves_every_version_that_shares_its_file(tmp_path, appends) -> None:
    from pipeline.verbs.erase import erase

    ws = workspace(tmp_path / "w", ONE_FOLDER)
    made = [
        take(ws, Step("zest/1", tuple(line(n, 0, 0) for n in range(8)))),
        take(ws, Step("zest/2", (line(20, 0, 0),))),
        take(ws, Step("zest/3", (line(21, 0, 0),))),
    ]
    assert appends == [3, 4]
    assert len(refs_paths(ws.store, ws.store.get("dataset_version", made[2]["id"]))) == 2
    gone = made[0]["refs"][4]
    where = f"row_hash = '{gone['row_hash']}'"
    erase(ws, Ui(), where, [], reason="asked to", do=True)
    for one, rows in zip(made, (8, 9, 10), strict=True):
        version = ws.store.get("dataset_version", one["id"])
        refs = read_refs(refs_paths(ws.store, version))
        assert gone["row_hash"] not in refs["row_hash"].to_pylist()
        assert len(refs) == rows == ws.store.manifest(version)["meta"]["rows"]
    assert not fsck(ws.store, ws.catalog).findings


def test_views_and_positions_go_over_all_files(tmp_path, appends) -> None:
    from registry.datasets.versions.query import open_connection, records, rows_at, version_files

    ws = workspace(tmp_path / "w", ONE_FOLDER)
    take(ws, Step("zest/1", tuple(line(n, 0, 0) for n in range(8))))
    made = take(ws, Step("zest/2", (line(20, 0, 0), line(21, 0, 0))))
    assert appends
    with open_connection(ws.store, v=version_files(ws.store, made["id"])) as connection:
        told = records(connection, "SELECT row_hash, position FROM v_refs ORDER BY position")
        last = rows_at(connection, "v", [0, 10])
    assert [one["row_hash"] for one in told] == [one["row_hash"] for one in made["refs"]]
    assert [one["position"] for one in told] == list(range(11))
    assert [one["source_file"] for one in last] == ["data/train/0.jsonl", "data/zest/2.jsonl"]
    seen = ws.catalog.query(
        "SELECT count(*), count(DISTINCT row_uid) FROM parquet.stored_refs WHERE object_id = ?",
        [made["id"]],
    )
    assert seen.rows == [(11, 11)]


def test_too_many_rejects_in_new_files_are_told_of_all_files(tmp_path, appends) -> None:
    from registry.errors import UserError

    ws = workspace(tmp_path / "w", ONE_FOLDER)
    text = (
        (ws.root / "gapmend.yaml").read_text().replace("allow_rejects: 1.0", "allow_rejects: 0.1")
    )
    (ws.root / "gapmend.yaml").write_text(text)
    ws = OpenWorkspace.open(ws.root)
    take(ws, Step("zest/1", tuple(line(n, 0, 0) for n in range(8))))
    with pytest.raises(UserError, match=r"2 of 12 rows of dataset 'rows' can't be used"):
        take(ws, Step("zest/2", ("{broken", "{broken")))
    assert appends == [3]


def test_an_index_with_a_flipped_bit_is_made_again(tmp_path: Path, appends: list[int]) -> None:
    ws = workspace(tmp_path / "a", "data")
    first = take(ws, Step("train/1", tuple(line(n, 0, 0) for n in range(6))))
    home = ws.state / "cache" / "rows" / first["id"]
    for number, name in enumerate(sorted(path.name for path in home.iterdir())):
        path = home / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        assert [one.problem for one in fsck(ws.store, ws.catalog).findings] == ["cache"], name
        assert open_index(ws.store, first["id"]) is None, name
        data[-1] ^= 1
        path.write_bytes(data)
        assert number or open_index(ws.store, first["id"]) is not None
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = list(appends)
    second = take(ws, Step("train/2", (line(50, 0, 0),)))
    assert appends == before  # all files were read
    anew = workspace(tmp_path / "b", "data")
    take(anew, Step("train/1", tuple(line(n, 0, 0) for n in range(6))))
    assert second["id"] == take(anew, Step("train/2", (line(50, 0, 0),)))["id"]
    assert open_index(ws.store, second["id"]) is not None
