"""Ingest from files to committed versions, with a real store and catalog."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.ingest import ingest, resolve
from pipeline.workspace.stage import WouldRunError
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.duplicates.near_duplicates import near_pairs
from registry.datasets.readers.reading import NO_UNICODE
from registry.errors import UserError
from tests.support.plain_rows import load_rows

SPEC = """\
bases: {{nano: {{model: nano}}}}
datasets:
  rows:
    path: {path}
    columns: {{input: text, output: label}}
    license: CC0-1.0
{extra}
capabilities: {{c: {{data: rows, answer: choice, goal: 0.8{labels}}}}}
train: {{base: nano}}
"""
WORDS = [
    "apple",
    "boat",
    "cloud",
    "door",
    "earth",
    "fire",
    "glass",
    "hill",
    "iron",
    "jungle",
    "kite",
    "lamp",
    "moon",
    "night",
    "oak",
]


def sentence(number: int) -> str:
    """Six words that no other number's sentence comes near."""
    digits = [(number // 15**place) % 15 for place in range(3)]
    return " ".join(f"{WORDS[d]}{place}{number}" for place, d in enumerate(digits * 2))


def lines(*numbers: int, label: str = "a") -> str:
    return "".join(f"{sentence(n)},{label}\n" for n in numbers)


def workspace(
    folder: Path, *, path: str = "rows.csv", extra: str = "", labels: str = ""
) -> OpenWorkspace:
    folder.mkdir(exist_ok=True, parents=True)
    text = SPEC.format(path=path, extra=extra, labels=labels)
    (folder / "gapmend.yaml").write_text(text)
    return OpenWorkspace.open(folder)


def version_of(ws: OpenWorkspace, ui: Ui) -> str:
    return resolve(ws, ui).versions["rows"]


def write(folder: Path, name: str, body: str | bytes) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    data = body.encode() if isinstance(body, str) else body
    (folder / name).write_bytes(b"text,label\n" + data)


def splits_of(ws: OpenWorkspace, version: str) -> dict[str, str]:
    return {row.messages[0].content: row.split for row in load_rows(ws.store, version)}


@pytest.fixture
def ui() -> Ui:
    return Ui(as_json=True)


def test_rows_come_back_with_file_line_licence_and_the_other_columns(tmp_path: Path, ui) -> None:
    body = 'text,label,lang\n"two\nlines",a,de\nüñ 漢字 🙂,b,\n'
    tmp_path.joinpath("rows.csv").write_text(body)
    ws = workspace(tmp_path)
    rows = load_rows(ws.store, version_of(ws, ui))
    assert [(r.uid, r.source_file, r.source_line) for r in rows] == [
        (0, "rows.csv", 2),
        (1, "rows.csv", 4),
    ]
    assert [m.content for m in rows[1].messages] == ["üñ 漢字 🙂", "b"]
    assert (rows[0].license, rows[0].dataset) == ("CC0-1.0", "rows")
    assert json.loads(rows[0].meta) == {"lang": "de"}
    shown = ws.catalog.query(
        "select messages[1].content, license, dataset from rows order by row_uid"
    )
    assert shown.rows[0] == ("two\nlines", "CC0-1.0", "rows")


def test_the_version_id_is_the_same_in_any_folder_with_any_uids(tmp_path: Path, ui) -> None:
    for place in ("one", "two"):
        write(tmp_path / place, "rows.csv", lines(*range(60)))
    write(tmp_path / "two", "other.csv", lines(*range(90, 70, -1), *range(30)))
    one = workspace(tmp_path / "one")
    other = "  other:\n    path: other.csv\n    columns: {input: text, output: label}\n"
    two = workspace(tmp_path / "two", extra=other)
    ingest(two, ui, ["other"])
    assert version_of(one, ui) == version_of(two, ui)
    uids = {row.row_hash: row.uid for row in load_rows(one.store, version_of(one, ui))}
    ours = {row.row_hash: row.uid for row in load_rows(two.store, version_of(two, ui))}
    assert uids.keys() == ours.keys()
    assert uids != ours


def test_a_known_row_keeps_its_uid_and_an_append_shares_the_old_rows(tmp_path: Path, ui) -> None:
    write(tmp_path, "rows.csv", lines(*range(40)))
    ws = workspace(tmp_path)
    first = version_of(ws, ui)
    before = {row.row_hash: row for row in load_rows(ws.store, first)}
    write(tmp_path, "rows.csv", lines(*range(100, 104), *range(40)))
    second = version_of(ws, ui)
    after = {row.row_hash: row for row in load_rows(ws.store, second)}
    assert len(after) == 44
    assert {h: (after[h].uid, after[h].split) for h in before} == {
        h: (row.uid, row.split) for h, row in before.items()
    }
    parents = ws.store.manifest(ws.store.get("dataset_version", second))["parents"]
    assert len(parents) == 2
    assert ws.store.manifest(ws.store.get("dataset_version", first))["parents"][0] in parents
    counts = ws.catalog.query("select version_id, count(*) from rows group by 1 order by 2").rows
    assert counts == [(first, 40), (second, 44)]


def test_an_exact_duplicate_is_one_row_that_lists_its_sources(tmp_path: Path, ui) -> None:
    write(tmp_path, "train.csv", lines(1, 2, 1))
    write(tmp_path, "test.csv", lines(2, 3))
    ws = workspace(tmp_path, path="{train: train.csv, test: test.csv}")
    (report,) = ingest(ws, ui).datasets
    assert (report.facts["rows"], report.facts["duplicates"]) == (3, 2)
    assert report.facts["leaks"]["exact"] == 1
    assert splits_of(ws, report.version_id)[sentence(2)] == "test"
    path = ws.store.get("dataset_version", report.version_id).path / "refs.parquet"
    import pyarrow.parquet as pq

    sources = pq.ParquetFile(path).read(columns=["sources"]).to_pylist()
    assert [[(s["file"], s["line"]) for s in row["sources"]] for row in sources] == [
        [("train.csv", 2), ("train.csv", 4)],
        [("train.csv", 3), ("test.csv", 2)],
        [("test.csv", 3)],
    ]


def test_a_train_row_near_a_test_row_is_held_out_and_said(tmp_path: Path, capsys) -> None:
    long = "please tell me when my new bank card will finally arrive at my home address"
    write(tmp_path, "train.csv", f"{long} today,a\n" + lines(*range(30)))
    write(tmp_path, "test.csv", f"{long},a\n" + lines(50, 51))
    ws = workspace(tmp_path, path="{train: train.csv, test: test.csv}")
    (report,) = ingest(ws, Ui()).datasets
    assert report.facts["splits"] == {"train": 27, "dev": 3, "test": 3, "held": 1}
    assert splits_of(ws, report.version_id)[f"{long} today"] == "held"
    told = capsys.readouterr().err
    assert "rows: 1 rows are near-duplicates of rows in another split" in " ".join(told.split())


@pytest.mark.parametrize("form", ["NFD", "full width", "zero-width", "one character changed"])
def test_a_copy_of_a_test_row_in_another_form_is_not_trained(tmp_path: Path, ui, form) -> None:
    text = "こんにちは、café のカードをなくしました。再発行の手続きと手数料を教えていただけますか？"  # noqa: RUF001
    copy = {
        "NFD": unicodedata.normalize("NFD", text),
        "full width": text.replace("café", "ｃａｆé"),
        "zero-width": "\u200b".join(text),
        "one character changed": text.replace("手数料", "手数量"),
    }[form]
    assert copy != text
    write(tmp_path, "train.csv", f"{copy},a\n" + lines(*range(30)))
    write(tmp_path, "test.csv", f"{text},a\n" + lines(50, 51))
    ws = workspace(tmp_path, path="{train: train.csv, test: test.csv}")
    assert splits_of(ws, version_of(ws, ui))[copy] == "held"


def test_what_a_file_was_taken_as_is_said(tmp_path: Path, capsys) -> None:
    body = "text;label;\n" + lines(*range(9)).replace(",", ";").replace("\n", ";\n")
    (tmp_path / "rows.csv").write_bytes(body.encode("utf-16"))
    (report,) = ingest(workspace(tmp_path), Ui()).datasets
    assert report.facts["rows"] == 9
    told = " ".join(capsys.readouterr().err.split())
    for said in ("UTF-16", "separator ;", "columns without a name left out: 1"):
        assert f"rows: rows.csv: {said}" in told


def test_a_file_in_latin_1_says_which_key_reads_it(tmp_path: Path, ui) -> None:
    body = "".join(f"{sentence(n)} é,a\n" for n in range(9)).encode("latin-1")
    write(tmp_path, "rows.csv", body)
    with pytest.raises(UserError, match="set the dataset's encoding: windows-1252, else") as raised:
        ingest(workspace(tmp_path), ui)
    assert "allow_rejects" not in str(raised.value)
    ws = workspace(tmp_path, extra="    encoding: windows-1252")
    assert sorted(splits_of(ws, version_of(ws, ui))) == sorted(f"{sentence(n)} é" for n in range(9))


def test_no_near_duplicates_straddle_the_carved_splits(tmp_path: Path, ui) -> None:
    variants = [f"{sentence(n)} {end}" for n in range(40) for end in ("", "now")]
    write(tmp_path, "rows.csv", "".join(f"{text},a\n" for text in variants))
    ws = workspace(tmp_path, extra="    split: {dev: 0.3, test: 0.3}")
    split = splits_of(ws, version_of(ws, ui))
    texts = list(split)
    pairs = [p for p in near_pairs(texts, texts) if p.left < p.right]
    assert pairs  # the rows are such that a random split would leak
    assert all(split[texts[p.left]] == split[texts[p.right]] for p in pairs)
    assert sorted(split.values()).count("dev") == 24


def test_unusable_rows_are_rejects_with_file_line_and_reason(tmp_path: Path, ui) -> None:
    body = (lines(*range(96)) + "no answer,\n").encode() + b"b\xffd,a\nodd,z\n1,2,3\n"
    write(tmp_path, "rows.csv", body)
    ws = workspace(tmp_path, extra="    allow_rejects: 0.05", labels=", labels: [a, b]")
    (report,) = ingest(ws, ui).datasets
    assert (report.facts["rows"], report.facts["rejects"]) == (96, 4)
    told = ws.catalog.query(
        "select stage, source_file, source_line, reason from rejects order by source_line"
    )
    assert told.rows == [
        ("ingest", "rows.csv", 98, "empty answer"),
        ("ingest", "rows.csv", 99, f"{NO_UNICODE}: byte 0xff; in windows-1252 it reads 'bÿd'"),
        ("ingest", "rows.csv", 100, "label not in the label set: 'z'"),
        ("ingest", "rows.csv", 101, "3 fields where the header has 2"),
    ]


def test_too_many_rejects_stop_with_reasons_and_nothing_is_acknowledged(tmp_path: Path, ui) -> None:
    write(tmp_path, "rows.csv", lines(*range(8)) + "x,\ny,\n" + "z,q,q\n")
    ws = workspace(tmp_path)
    with pytest.raises(UserError) as raised:
        ingest(ws, ui)
    assert str(raised.value) == (
        "3 of 11 rows of dataset 'rows' can't be used: 2 x empty answer (first rows.csv:10); "
        "1 x 3 fields where the header has 2 (first rows.csv:12); expected at most 1.0% of them. "
        "Mend the rows, or set datasets.rows.allow_rejects: 0.28"
    )
    assert ws.catalog.committed("dataset_version") == []
    assert ws.catalog.committed("rows") == []


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("rows.csv", b"txt,label\nq,a\n", r"rows\.csv:1: no column 'text'; .*did you mean 'txt'"),
        ("other.csv", b"text,label\n", r"rows\.csv: no such file\. That folder has other\.csv"),
        ("rows.csv", b"text,label\n", "dataset 'rows' has no rows"),
    ],
)
def test_a_file_of_no_use_is_one_line(tmp_path: Path, ui, name, body, message) -> None:
    (tmp_path / name).write_bytes(body)
    ws = workspace(tmp_path)
    with pytest.raises(UserError, match=f"(?i){message}") as raised:
        ingest(ws, ui)
    assert "\n" not in str(raised.value)


def test_asking_again_is_a_cache_hit_until_a_file_or_the_spec_changes(tmp_path: Path, ui) -> None:
    write(tmp_path, "rows.csv", lines(*range(20)))
    ws = workspace(tmp_path)
    dry = replace(ws, dry=True)
    with pytest.raises(WouldRunError, match="has not run yet"):
        ingest(dry, ui)
    assert not (tmp_path / ".gapmend" / "ingest.lock").exists()
    assert ingest(ws, ui).datasets[0].cached is False
    assert ingest(dry, ui).datasets[0].cached is True
    write(tmp_path, "rows.csv", lines(*range(21)))
    with pytest.raises(WouldRunError, match="changed: files"):
        ingest(dry, ui)
    write(tmp_path, "rows.csv", lines(*range(20)))
    assert ingest(dry, ui).datasets[0].cached is True
    relabelled = workspace(tmp_path, labels=", labels: [a, b]")
    assert ingest(relabelled, ui).datasets[0].cached is False


def test_a_changed_column_beside_the_answer_is_another_version(tmp_path: Path, ui) -> None:
    tmp_path.joinpath("rows.csv").write_text("text,label,hint\nq,a,one\n")
    ws = workspace(tmp_path)
    first = version_of(ws, ui)
    tmp_path.joinpath("rows.csv").write_text("text,label,hint\nq,a,two\n")
    second = version_of(ws, ui)
    assert second != first
    assert [json.loads(r.meta) for r in load_rows(ws.store, second)] == [{"hint": "two"}]


def test_killed_between_put_and_commit_the_next_call_finishes_consistently(
    tmp_path: Path, ui, monkeypatch
) -> None:
    write(tmp_path, "rows.csv", lines(*range(30)))
    write(tmp_path, "other.csv", lines(*range(10, 50)))
    other = "  other:\n    path: other.csv\n    columns: {input: text, output: label}\n"
    ws = workspace(tmp_path, extra=other)
    with monkeypatch.context() as patch:
        patch.setattr(type(ws.catalog), "commit", _killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(ws, ui, ["rows"])
    assert ws.catalog.committed("dataset_version") == []
    ingest(ws, ui, ["other"])  # takes uids meanwhile
    version = version_of(ws, ui)
    rows = load_rows(ws.store, version)
    assert {row.messages[0].content for row in rows} == {sentence(n) for n in range(30)}
    seen = ws.catalog.query("select count(*) from rows where version_id = ?", [version])
    assert seen.rows == [(30,)]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_two_processes_at_once_give_a_row_one_uid(tmp_path: Path) -> None:
    write(tmp_path, "rows.csv", lines(*range(200)))
    shutil.copy(tmp_path / "rows.csv", tmp_path / "other.csv")
    with (tmp_path / "other.csv").open("a") as file:
        file.write(lines(*range(300, 320)))
    other = "  other:\n    path: other.csv\n    columns: {input: text, output: label}\n"
    ws = workspace(tmp_path, extra=other)
    code = (
        "import sys; from pathlib import Path;"
        "from pipeline.workspace.workspace import OpenWorkspace;"
        "from pipeline.workspace.ui import Ui; from pipeline.ingest import ingest;"
        "ingest(OpenWorkspace.open(Path(sys.argv[1])), Ui(), [sys.argv[2]])"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name])
        for name in ("rows", "other")
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    counted = ws.catalog.query(
        "select count(distinct row_uid), count(distinct row_hash), count(*) from rows"
    )
    assert counted.rows == [(220, 220, 420)]


def test_the_examples_read_real_rows(
    project_root: Path, real_data: Path, tmp_path: Path, ui
) -> None:
    assert (real_data / "banking77").is_dir()
    reports: dict[str, Any] = {}
    for example in ("banking77", "llamafactory"):
        (tmp_path / example).mkdir()
        shutil.copy(project_root / "examples" / example / "gapmend.yaml", tmp_path / example)
        # Datasets beside the example (the quickstart's guards) are found where it expects them.
        (tmp_path / "quickstart").mkdir(exist_ok=True)
        data = tmp_path / "quickstart" / "data"
        if not data.exists():
            data.symlink_to(project_root / "examples" / "quickstart" / "data")
        ws = OpenWorkspace.open(tmp_path / example)
        reports |= {r.name: (ws, r) for r in ingest(ws, ui).datasets}
    facts = {name: report.facts for name, (_, report) in reports.items()}
    assert facts["banking"]["rows"] == 13_083
    assert facts["banking"]["splits"]["test"] == 3_080
    assert facts["alpaca"]["records"] == 999
    assert facts["identity"]["rows"] == 91
    assert facts["tools"]["records"] == 300
    ws, report = reports["tools"]
    turns = [message for row in load_rows(ws.store, report.version_id) for message in row.messages]
    assert any(message.tool_calls for message in turns)
    assert any(message.role == "tool" for message in turns)


def test_a_missing_llamafactory_file_is_one_line(project_root, real_data, tmp_path, ui) -> None:
    text = (project_root / "examples" / "llamafactory" / "gapmend.yaml").read_text()
    (tmp_path / "gapmend.yaml").write_text(text.replace("alpaca_en_demo", "alpaca_zh_demo"))
    ws = OpenWorkspace.open(tmp_path)
    with pytest.raises(UserError) as raised:
        ingest(ws, ui, ["alpaca"])
    folder = real_data / "llamafactory"
    assert str(raised.value) == (
        f"{folder}/dataset_info.json: entry 'alpaca_zh_demo': its file alpaca_zh_demo.json is "
        f"missing. Put it in {folder}, or drop the entry"
    )
