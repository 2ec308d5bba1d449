"""Two datasets of the same rows are one version, and each is known by its own name and places."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.ingest import ingest, resolve
from pipeline.verbs.dataset import show
from pipeline.verbs.erase import erase
from pipeline.verbs.pull import take
from pipeline.verbs.push import _parcel, thing_of
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.catalog.aliases import check_alias_name
from registry.datasets.history.facts import listing
from registry.datasets.versions.read import VersionReader
from registry.errors import UserError
from registry.lineage.graph import lineage
from registry.lineage.openlineage import openlineage
from registry.lineage.rows import RowPlace, RowSource, row_lineage, sources_of
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild

UI = Ui(as_json=True)
SPEC = """
bases: {nano: {model: nano}}
datasets:
  first: {path: a.jsonl, columns: {input: q, output: a}, license: MIT}
  second: {path: b.jsonl, columns: {input: q, output: a}, license: MIT, allow_rejects: 0.5}
capabilities: {c: {data: first, answer: exact, goal: 0.8}}
train: {base: nano}
"""


def rows(*names: str) -> list[str]:
    return [json.dumps({"q": f"Where does {name} live?", "a": f"with {name}"}) for name in names]


NAMES = ("Ann", "Bob", "Cem", "Dora")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`second` has the rows of `first` two lines further down, below one that can't be used."""
    root = tmp_path_factory.mktemp("made")
    (root / "a.jsonl").write_text("\n".join(rows(*NAMES)))
    unusable = json.dumps({"q": "Nobody?", "a": ""})
    (root / "b.jsonl").write_text("\n".join(["", unusable, *rows(*NAMES)]))
    (root / "gapmend.yaml").write_text(SPEC)
    versions = ingest(OpenWorkspace.open(root), UI).versions
    assert versions["first"] == versions["second"]
    return root


@pytest.fixture
def ws(original: Path, tmp_path: Path) -> OpenWorkspace:
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return OpenWorkspace.open(tmp_path)


def version(ws: OpenWorkspace) -> str:
    return resolve(ws, UI).versions["first"]


def test_the_views_have_a_line_for_each_name(ws: OpenWorkspace) -> None:
    ask = ws.catalog.sql
    assert ask("SELECT name, rows, rejects FROM dataset_versions ORDER BY name").rows == [
        ("first", 4, 0), ("second", 4, 1),
    ]  # fmt: skip
    assert ask("SELECT name, versions FROM datasets").rows == [("first", 1), ("second", 1)]
    places = "SELECT source, source_file, source_line FROM rows WHERE dataset = ? ORDER BY row_uid"
    assert ask(places, ["first"]).rows == [("first", "a.jsonl", n) for n in (1, 2, 3, 4)]
    assert ask(places, ["second"]).rows == [("second", "b.jsonl", n) for n in (3, 4, 5, 6)]
    rejects = "SELECT subject, source_file, source_line FROM rejects"
    assert ask(rejects).rows == [("second", "b.jsonl", 2)]
    assert [(one.name, one.rejects) for one in listing(ws.catalog)] == [("first", 0), ("second", 1)]


def test_rows_are_read_as_the_dataset_that_is_asked_for_has_them(ws: OpenWorkspace) -> None:
    read = VersionReader(ws.store, version(ws), "second").rows(range(9))
    assert [(row.dataset, row.source_file, row.source_line) for row in read] == [
        ("second", "b.jsonl", n) for n in (3, 4, 5, 6)
    ]
    shown = show(ws, "second", rows=1)
    assert (shown.name, shown.sources) == ("second", {"b.jsonl": 4})
    assert list(shown.rejects.values()) == [(1, "b.jsonl:2")]
    assert show(ws, "first", rows=1).sources == {"a.jsonl": 4}


def test_lineage_names_both(ws: OpenWorkspace) -> None:
    key = version(ws)
    assert sources_of(ws.catalog, key) == (
        RowSource("first", key, "first", "a.jsonl", 4, 0),
        RowSource("second", key, "second", "b.jsonl", 4, 0),
    )
    assert row_lineage(ws.catalog, 1).places == (
        RowPlace(key, "first", "first", "a.jsonl", 2, "train"),
        RowPlace(key, "second", "second", "b.jsonl", 4, "train"),
    )
    written = [
        output["name"]
        for event in openlineage(ws.catalog)
        if event["job"]["name"] == "ingest"
        for output in event["outputs"]
        if output["name"].startswith("dataset/")
    ]
    assert written == ["dataset/first", "dataset/second"]
    (node,) = (one for one in lineage(ws.catalog, key).nodes if one.id == key)
    assert node.label == "first, second"


def test_a_push_goes_by_the_name_that_was_asked_for(ws: OpenWorkspace, tmp_path: Path) -> None:
    manifest = thing_of(ws, "second")
    assert manifest.id == version(ws)
    parcel = _parcel(ws, manifest, "second", "me/it", tmp_path)
    assert "# second" in parcel.card
    assert "first" not in parcel.card
    sent = pq.read_table(tmp_path / "data" / "train.parquet")
    assert set(sent["source_file"].to_pylist()) == {"b.jsonl"}


def test_an_erasure_finds_and_tells_all(ws: OpenWorkspace) -> None:
    where = "dataset = 'second' AND messages[1].content LIKE '%Bob%'"
    looked = erase(ws, UI, where, (), reason="", do=False)
    assert [(p.dataset, p.file, p.line) for p in looked.reach.places] == [
        ("first", "a.jsonl", 2), ("second", "b.jsonl", 4),
    ]  # fmt: skip
    assert [one.name for one in looked.reach.of("dataset_version")] == ["first, second"]
    done = erase(ws, UI, where, (), reason="", do=True)
    assert done.objects == {"dataset_version": 1, "places": 1, "rows": 1}
    assert fsck(ws.store, ws.catalog).findings == ()
    versions = ingest(ws, UI).versions
    assert versions["first"] == versions["second"]  # made again, both without it
    read = VersionReader(ws.store, versions["second"], "second").rows(range(9))
    assert [row.source_line for row in read] == [3, 5, 6]


def test_a_file_of_another_name_and_a_copy_from_elsewhere_are_known(
    ws: OpenWorkspace, tmp_path: Path
) -> None:
    (tmp_path / "parcel").mkdir()
    with ws.store.draft() as scratch:
        for file in _parcel(ws, thing_of(ws, "first"), "first", "me/it", scratch).files:
            (tmp_path / "parcel" / file.path).parent.mkdir(exist_ok=True)
            data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            (tmp_path / "parcel" / file.path).write_bytes(data)
    (tmp_path / "a.jsonl").rename(tmp_path / "c.jsonl")
    (tmp_path / "gapmend.yaml").write_text(SPEC.replace("a.jsonl", "c.jsonl"))
    ws = OpenWorkspace.open(tmp_path)
    ingest(ws, UI)
    assert take(ws, UI, str(tmp_path / "parcel")).same
    files = "SELECT DISTINCT dataset, source_file FROM rows ORDER BY dataset"
    known = [("first", "c.jsonl"), ("pulled/parcel", "a.jsonl"), ("second", "b.jsonl")]
    assert ws.catalog.sql(files).rows == known
    looked = erase(ws, UI, None, (0,), reason="", do=False)
    assert [(p.dataset, p.file) for p in looked.reach.places] == [
        ("first", "a.jsonl"), ("first", "c.jsonl"), ("pulled/parcel", "a.jsonl"),
        ("second", "b.jsonl"),
    ]  # fmt: skip
    rebuild(ws.store, ws.catalog)
    assert ws.catalog.sql(files).rows == known


def test_a_second_name_is_no_alias(ws: OpenWorkspace) -> None:
    with pytest.raises(UserError, match="it is a dataset's name"):
        check_alias_name(ws.catalog, "second")
