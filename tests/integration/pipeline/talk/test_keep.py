"""A keep that is refused: the files and what is said of each version stay as they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.ingest import ingest
from pipeline.talk.keep import Kept, Kind, keep
from pipeline.verbs.erase import erase
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.datasets.history.facts import facts
from registry.datasets.history.names import version_named, versions
from registry.errors import UserError
from registry.store.kinds import PlacesMeta, RunMeta

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """
bases: {nano: {model: nano, dtype: fp32}}
datasets:
  colours:
    path: {train: data/train.jsonl, dev: data/dev.jsonl}
    columns: {input: q, output: a}
  empty: {path: data/empty.jsonl, format: messages}
capabilities:
  colour: {data: colours, answer: exact, goal: 0.9}
train: {base: nano, pool: [colours], budget_rows: 10}
"""
UI = Ui(as_json=True)
QUESTION = "What colour has a thing that nobody saw?"
THERE = "moss stone ledge 1"


@pytest.fixture
def ws(tmp_path: Path) -> OpenWorkspace:
    data = tmp_path / "data"
    data.mkdir()
    for split, words in (("train", "moss stone ledge"), ("dev", "copper kettle lid")):
        rows = [{"q": f"{words} {n}", "a": ("red", "blue")[n % 2]} for n in range(10)]
        (data / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (data / "empty.jsonl").touch()
    (tmp_path / "gapmend.yaml").write_text(SPEC)
    return OpenWorkspace.open(tmp_path)


def kept(ws: OpenWorkspace, kind: Kind, name: str, question: str, answer: str) -> Kept:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return keep(ws, UI, kind, name, turns, "a test")


def said(ws: OpenWorkspace) -> list[Any]:
    """Everything that is said of the versions, what is recorded and what the files hold."""
    shown = facts(ws.store, ws.catalog, version_named(ws.catalog, "colours"), rows=0)
    recorded = [one.id for kind in (RunMeta, PlacesMeta) for one in ws.catalog.committed(kind)]
    files = {path.name: path.read_bytes() for path in (ws.root / "data").iterdir()}
    return [versions(ws.catalog), shown.meta, shown.sources, recorded, files]


@pytest.mark.parametrize("kind", ["row", "item"])
def test_what_was_kept_is_not_kept_again_whichever_way(ws: OpenWorkspace, kind: Kind) -> None:
    kept(ws, "row", "colours", QUESTION, "red")
    before = said(ws)
    assert (before[1]["records"], before[1]["duplicates"]) == (21, 0)
    name = "colours" if kind == "row" else "colour"
    where = r"data/train\.jsonl:11: nothing is kept"
    with pytest.raises(UserError, match=f"colours has this already, in {where}"):
        kept(ws, kind, name, QUESTION, "red")
    assert said(ws) == before
    assert kept(ws, "item", "colour", "Which colour is the sea at night?", "blue").split == "dev"


def test_what_stands_in_files_that_were_not_read_yet_is_there(ws: OpenWorkspace) -> None:
    with pytest.raises(UserError, match=r"colours has this already, in data/train\.jsonl:2:"):
        kept(ws, "item", "colour", THERE, "blue")
    before = said(ws)
    assert (before[1]["records"], before[1]["leaks"]) == (20, {"exact": 0, "near": 0})
    ingest(ws, UI, ["colours"])
    assert said(ws) == before


def test_what_a_kill_left_in_the_file_is_read_and_there(ws: OpenWorkspace) -> None:
    """Killed behind the line and before the ingest: it counts, and is not kept twice."""
    ingest(ws, UI, ["colours"])
    with (ws.root / "data" / "train.jsonl").open("a") as file:
        file.write(f"{json.dumps({'q': QUESTION, 'a': 'red', 'kept_from': 'a kill'})}\n")
    with pytest.raises(UserError, match=r"has this already, in data/train\.jsonl:11:"):
        kept(ws, "item", "colour", QUESTION, "red")
    meta = version_named(ws.catalog, "colours").meta
    assert (meta.records, meta.rows, meta.duplicates, meta.leaks.exact) == (21, 21, 0, 0)


def test_what_was_erased_is_not_kept_again(ws: OpenWorkspace) -> None:
    ingest(ws, UI, ["colours"])
    where = f"messages[1].content = '{THERE}'"
    erase(ws, UI, where, [], reason="asked for", do=True)
    ingest(ws, UI, ["colours"])
    before = said(ws)
    with pytest.raises(UserError, match="this was erased on purpose: nothing is kept"):
        kept(ws, "item", "colour", THERE, "blue")
    assert said(ws) == before


def test_the_first_line_of_an_empty_file(ws: OpenWorkspace) -> None:
    made = kept(ws, "row", "empty", QUESTION, "red")
    assert (made.file, made.line) == ("data/empty.jsonl", 1)
    with pytest.raises(UserError, match=r"empty has this already, in data/empty\.jsonl:1:"):
        kept(ws, "row", "empty", QUESTION, "red")


def test_what_no_file_can_hold_is_refused_in_a_line(ws: OpenWorkspace) -> None:
    ingest(ws, UI, ["colours"])
    before = said(ws)
    with pytest.raises(UserError, match="this can't be a row: "):
        kept(ws, "row", "colours", "half a sign \ud83d", "red")
    assert said(ws) == before
