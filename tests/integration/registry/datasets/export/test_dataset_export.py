"""Exports: what is written, what is refused, and that gapmend reads the same rows again."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import datasets
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ingest import ingest
from pipeline.verbs import dataset
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.choices import FormName
from registry.datasets.export import export as dataset_export
from registry.datasets.export.export import export_version
from registry.datasets.export.forms import FORMATS
from registry.datasets.formats.content import Content, Message, content_hash
from registry.datasets.formats.format import SHAPES, Format
from registry.datasets.history.names import Version
from registry.datasets.readers.read import read_records
from registry.datasets.sources.llamafactory import read_entry
from registry.datasets.versions import query as dataset_files
from registry.errors import UserError
from registry.store.kinds import VersionMeta
from registry.store.manifest import manifest_in
from tests.support.any_rows import contents
from tests.support.made_versions import Made, Versions, rows_of, sft
from tests.support.plain_rows import load_rows

FORMS: tuple[FormName, ...] = get_args(FormName)
UI = Ui(as_json=True)
CALL = {"type": "function", "function": {"name": "find", "arguments": {"b": [1.5, None], "a": "é"}}}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]


def asked(number: int) -> list[dict[str, Any]]:
    words = f"question{number} alpha{number} beta{number} gamma{number}"
    return [{"role": "system", "content": "s\u2028"}, {"role": "user", "content": words}]


def told(number: int) -> dict[str, Any]:
    return {"role": "assistant", "content": f"answer\n{number} \U0001f600\x00"}


def record(kind: str, number: int) -> dict[str, Any]:
    if kind == "text":
        return {"text": f"word{number} again{number} and{number} more{number} \ufffe"}
    if kind == "sft":
        return {"messages": [*asked(number), told(number)], "id": number, "kept": {"a": [1, None]}}
    if kind == "tools":
        called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
        result = {"role": "tool", "content": f"{number}"}
        return {"messages": [*asked(number), called, result, told(number)], "tools": TOOLS}
    if kind == "preference":
        return {"prompt": asked(number), "chosen": [told(number)], "rejected": [told(-number)]}
    return {"prompt": asked(number), "completion": [told(number)], "label": number % 2 == 0}


def workspace(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> OpenWorkspace:
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "bases": {"nano": {"model": "nano"}},
        "datasets": entries,
        "capabilities": {"c": {"data": next(iter(entries)), "answer": "exact", "goal": 0.5}},
        "train": {"base": "nano"},
    }
    (folder / "gapmend.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True))
    return OpenWorkspace.open(folder)


def made_of(folder: Path, kind: str) -> Path:
    """A workspace with one dataset of that kind, in three files."""
    (folder / "data").mkdir(parents=True)
    paths = {}
    for split, numbers in (("train", range(1, 30)), ("dev", range(30, 36)), ("test", (40, 41))):
        paths[split] = f"data/{split}.jsonl"
        lines = [json.dumps(record(kind, n), ensure_ascii=False) for n in numbers]
        (folder / paths[split]).write_text("\n".join(lines), encoding="utf-8", newline="\n")
    name = "sft" if kind == "tools" else kind
    form = {"sft": "messages"}.get(name, name)
    ws = workspace(folder, {"rows": {"path": paths, "format": form, "license": "CC0-1.0"}})
    ingest(ws, UI)
    return folder


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], OpenWorkspace]:
    """Copies, into a folder, the workspace of a kind, which is made once."""
    made = functools.cache(lambda kind: made_of(tmp_path_factory.mktemp("made") / "ws", kind))

    def copy(folder: Path, kind: str) -> OpenWorkspace:
        return OpenWorkspace.open(shutil.copytree(made(kind), folder))

    return copy


def split_of(ws: OpenWorkspace | WorkspaceStore, version: str) -> dict[str, str]:
    return {row.row_hash: row.split for row in load_rows(ws.store, version)}


def exported(ws: OpenWorkspace, out: Path, form: FormName, *splits: str) -> dataset.DatasetExport:
    return dataset.export(WorkspaceStore.open(ws.root), UI, "rows", out, form, splits=splits)


def again(folder: Path, out: Path, found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Ingest an exported folder as the export says; returns row_hash -> split, and the versions."""
    entries: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(found):
        path = one["path"]
        whole = (
            str(out / path)
            if isinstance(path, str)
            else {split: str(out / file) for split, file in path.items()}
        )
        more = {} if isinstance(path, dict) else {"split": {"dev": 0, "test": 0}}
        entries[f"d{number}"] = {**one, "path": whole, **more}
    ws = workspace(folder, entries)
    report = ingest(ws, UI)
    splits: dict[str, str] = {}
    for read in report.datasets:
        name = entries[read.name].get("name", "")
        given = split_of(ws, read.version_id)
        if name:  # an entry of LLaMA-Factory is one split, and its name says which
            assert set(given.values()) == {"train"}
            given = dict.fromkeys(given, name.rpartition("_")[2])
        splits |= given
    return {"splits": splits, "versions": [read.version_id for read in report.datasets]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["sft", "tools", "text", "preference", "feedback"])
def test_what_was_exported_is_read_again_as_the_same_rows(
    ingested, tmp_path: Path, kind: str, form: FormName
) -> None:
    ws = ingested(tmp_path / "here", kind)
    (version,) = [one.version_id for one in dataset.ls(WorkspaceStore.open(ws.root))]
    out = tmp_path / "out"
    if (kind, form) == ("text", "llamafactory"):
        with pytest.raises(UserError, match="plain text has no entry"):
            exported(ws, out, form)
        assert not out.exists()
        return
    report = exported(ws, out, form)
    assert report.rows.splits == {"train": 29, "dev": 6, "test": 2}
    there = again(tmp_path / "there", out, report.rows.read_again)
    assert there["splits"] == split_of(ws, version)
    if form in ("jsonl", "trl"):  # other columns, order and licence too: it is the same version
        assert there["versions"] == [version]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_any_rows_come_back_from_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of any text and kind, through the readers of files, in their order."""
    kind = data.draw(st.sampled_from(list(FORMATS)))
    form = data.draw(st.sampled_from(FORMS))
    rows = data.draw(st.lists(contents(kind), min_size=1, max_size=4, unique_by=content_hash))
    folder = tmp_path_factory.mktemp("any")
    made = Versions(folder / "store")
    version = made.put(rows_of(rows), commit=False)
    out = folder / "out"
    out.mkdir()
    try:
        written = write(made, version, out, form)
    except UserError:
        if form in ("llamafactory", "trl"):
            return
        raise
    (one,) = written.read_again
    if form == "llamafactory":
        reader, path = read_entry(out, one["name"]).format, out / "train.jsonl"
    else:
        reader, path = Format(SHAPES[one["format"]]), out / one["path"]["train"]
    found = [reader.content(line.value) for line in read_records(path) if line.value is not None]
    assert found == rows
    assert [content_hash(one) for one in found] == [content_hash(one) for one in rows]


def write(made: Versions, version: str, out: Path, form: FormName, *splits: str) -> Any:
    meta = manifest_in(made.store.get("dataset_version", version).path, VersionMeta).meta
    about = Version(version, "chat", meta.created_at, meta)
    return export_version(made.store, about, out, form, splits=splits)


def test_the_files_of_llamafactory_are_alpaca_and_sharegpt_too(ingested, tmp_path: Path) -> None:
    """With a file for each split they are the whole version again, other columns and all."""
    for kind, form in (("sft", "alpaca"), ("tools", "sharegpt")):
        ws = ingested(tmp_path / kind, kind)
        (version,) = [one.version_id for one in dataset.ls(WorkspaceStore.open(ws.root))]
        exported(ws, tmp_path / f"out-{kind}", "llamafactory")
        path = {split: f"{split}.jsonl" for split in ("train", "dev", "test")}
        one = {"path": path, "format": form, "license": "CC0-1.0"}
        there = again(tmp_path / f"there-{kind}", tmp_path / f"out-{kind}", [one])
        assert there["versions"] == [version]


def loaded(folder: Path, name: str | None = None) -> Any:
    return datasets.load_dataset(str(folder), name, cache_dir=str(folder.parent / "cache"))


def test_datasets_loads_the_folder(ingested, tmp_path: Path) -> None:
    ws = ingested(tmp_path / "here", "tools")
    exported(ws, tmp_path / "out", "datasets")
    found = loaded(tmp_path / "out")
    assert {split: len(found[split]) for split in found} == {"train": 29, "dev": 6, "test": 2}
    first = found["train"][0]
    assert first["messages"][0]["content"] == "s\u2028"
    assert first["messages"][-1]["content"] == "answer\n1 \U0001f600\x00"
    call = first["messages"][2]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == CALL["function"]["arguments"]  # type: ignore[index]
    assert json.loads(first["tools"]) == TOOLS


def test_datasets_loads_what_trl_is_given(ingested, tmp_path: Path) -> None:
    ws = ingested(tmp_path / "here", "tools")
    exported(ws, tmp_path / "out", "trl")
    file = str(tmp_path / "out" / "train.jsonl")
    found = datasets.load_dataset("json", data_files=file, cache_dir=str(tmp_path / "cache"))
    messages = found["train"][0]["messages"]
    assert messages[2]["tool_calls"] == [CALL]
    assert found["train"][0]["tools"] == json.dumps(TOOLS)


def test_several_kinds_are_several_files(tmp_path: Path) -> None:
    made = Versions(tmp_path / "store")
    text = Content("text", (Message("text", "once"),))
    version = made.put([Made(sft("a", "b")), Made(text), Made(sft("c", "d"), "test")], commit=False)
    out = tmp_path / "out"
    out.mkdir()
    found = write(made, version, out, "datasets")
    assert sorted(path.name for path in out.rglob("*.parquet")) == [
        "test-sft.parquet",
        "train-sft.parquet",
        "train-text.parquet",
    ]
    assert len(found.read_again) == 2
    assert {s: len(d) for s, d in loaded(out, "sft").items()} == {"train": 1, "test": 1}
    assert loaded(out, "text")["train"]["text"] == ["once"]


def test_held_rows_stay_out_unless_they_are_named(tmp_path: Path) -> None:
    made = Versions(tmp_path / "store")
    version = made.put([Made(sft("a", "b")), Made(sft("c", "d"), "held")], commit=False)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    found = write(made, version, first, "jsonl")
    assert (found.splits, found.left_out) == ({"train": 1}, {"held": 1})
    found = write(made, version, second, "jsonl", "held")
    assert (found.splits, found.left_out) == ({"held": 1}, {"train": 1})
    assert [path.name for path in second.iterdir()] == ["held.jsonl"]


@pytest.mark.parametrize(
    ("splits", "said"), [(("validation",), "no split is called"), (("test",), "no rows in test")]
)
def test_a_split_that_is_not_there(tmp_path: Path, splits: Sequence[str], said: str) -> None:
    made = Versions(tmp_path / "store")
    version = made.put([Made(sft("a", "b"))], commit=False)
    with pytest.raises(UserError, match=said):
        write(made, version, tmp_path, "jsonl", *splits)


def test_the_order_is_the_version_s_wherever_the_content_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content that came with other versions, in another order, read a few rows at a time."""
    monkeypatch.setattr(dataset_files, "_CHUNK", 7)
    monkeypatch.setattr(dataset_export, "_BATCH", 3)
    rows = [Made(sft(f"q{n}", "a"), ("train", "dev")[n % 3 == 0]) for n in range(60)]
    made = Versions(tmp_path / "store")
    for first in (40, 0, 20):
        made.put(rows[first : first + 20], commit=False)
    shuffled = random.Random(1).sample(rows, 60)
    version = made.put(shuffled, commit=False)
    (tmp_path / "out").mkdir()
    write(made, version, tmp_path / "out", "jsonl")
    for split in ("train", "dev"):
        lines = (tmp_path / "out" / f"{split}.jsonl").read_text("utf-8").splitlines()
        found = [json.loads(line)["messages"][0]["content"] for line in lines]
        wanted = [row.content.messages[0].content for row in shuffled if row.split == split]
        assert found == wanted


def test_rows_without_content_are_counted(tmp_path: Path) -> None:
    made = Versions(tmp_path / "store")
    made.put([Made(sft("a", "b"))], commit=False)
    gone = sft("erased", "x")
    made.known[content_hash(gone)] = (999, next(iter(made.known.values()))[1])
    version = made.put([Made(sft("a", "b")), Made(gone)], commit=False)
    (tmp_path / "out").mkdir()
    found = write(made, version, tmp_path / "out", "jsonl")
    assert (found.splits, found.erased) == ({"train": 1}, 1)


@pytest.mark.parametrize("form", ["llamafactory", "trl"])
def test_a_row_that_a_form_can_not_say_leaves_nothing_behind(
    ingested, tmp_path: Path, form: FormName
) -> None:
    ws = ingested(tmp_path / "here", "sft")
    one = record("sft", 50)
    one["messages"][1:1] = [{"role": "user", "content": "x"}, told(1) | {"weight": 0}]
    with (ws.root / "data/train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(one))
    ingest(ws, UI)
    with pytest.raises(
        UserError, match=r"data/train\.jsonl:30 \(row \d+\): .*masked from the loss"
    ):
        exported(ws, tmp_path / "out" / "x", form)
    assert list((tmp_path / "out").iterdir()) == []
    exported(ws, tmp_path / "out" / "x", "jsonl")
    *_, last = (tmp_path / "out/x/train.jsonl").read_bytes().rstrip().split(b"\n")
    assert json.loads(last)["messages"][2]["weight"] == 0


def test_a_column_that_the_form_has_already_is_named(tmp_path: Path) -> None:
    made = Versions(tmp_path / "store")
    version = made.put([Made(sft("a", "b"), meta='{"system": "linux"}')], commit=False)
    with pytest.raises(UserError, match="its other column 'system'"):
        write(made, version, tmp_path, "jsonl")
    (tmp_path / "out").mkdir()
    write(made, version, tmp_path / "out", "parquet")


def test_a_folder_in_use_is_refused(ingested, tmp_path: Path) -> None:
    ws = ingested(tmp_path / "here", "sft")
    out = tmp_path / "out"
    out.mkdir()
    exported(ws, out, "jsonl")  # an empty one is not
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(UserError, match="something already"):
        exported(ws, out, "parquet")
    assert sorted(path.name for path in out.iterdir()) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.verbs import dataset
from pipeline.workspace.ui import Ui
from pipeline.workspace.store import WorkspaceStore
import registry.datasets.export.export as export

original = export._content
left = [20]

def content(row):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(row)

export._content = content
ws = WorkspaceStore.open(Path(sys.argv[1]))
dataset.export(ws, Ui(as_json=True), "rows", Path(sys.argv[2]), "jsonl")
"""


def test_a_killed_export_leaves_no_folder_and_the_next_one_clears_up(
    ingested, tmp_path: Path
) -> None:
    ws = ingested(tmp_path / "here", "sft")
    out = tmp_path / "new" / "out"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(ws.root), str(out)], check=False, env=os.environ
    )
    assert killed.returncode == -signal.SIGKILL
    (draft,) = out.parent.iterdir()
    assert draft.name.startswith(".out.")
    exported(ws, out, "jsonl")
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert sorted(path.name for path in out.iterdir()) == ["dev.jsonl", "test.jsonl", "train.jsonl"]


def test_an_export_is_on_the_record(ingested, tmp_path: Path) -> None:
    ws = ingested(tmp_path / "here", "sft")
    report = exported(ws, tmp_path / "out", "jsonl", "dev")
    found = ws.catalog.query("SELECT parent FROM lineage WHERE child_kind = 'export'").rows
    assert found == [(report.version,)]
    assert report.rows.left_out == {"test": 2, "train": 29}
