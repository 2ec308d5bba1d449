"""ingest --dry-run, as a user: what a dataset is, what is wrong, what the model will see."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.called import forked
from tests.support.loaded import with_models

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("with models")
SPEC = """\
bases: {nano: {model: nano}}
datasets:
  teams: {path: data/teams, columns: {input: text, output: team}}
  chats: {path: "data/chats/*.jsonl.gz"}
  pairs: {path: data/pairs.jsonl}
  joined: {sql: "select text as input, team as output from 'data/teams/*.csv'"}
capabilities:
  routing:
    {data: teams, answer: choice, goal: 0.9, prompts: {zero_shot: "Ticket: {input}\\nTeam:"},
     labels: [billing, tech]}
train: {base: nano, pool: [teams, chats]}
"""
TURNS = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]},
    {"role": "tool", "content": "4"},
    {"role": "assistant", "content": "Four\u001b[31m.", "logprobs": [0.5]},
]


def workspace(folder: Path) -> Path:
    for name in ("teams", "chats"):
        (folder / "data" / name).mkdir(parents=True)
    (folder / "gapmend.yaml").write_text(SPEC)
    bad = "no answer,\nlost,nobody\nalso lost,nobody\n"
    (folder / "data" / "teams" / "a.csv").write_text(f"text,team\nmy invoice,billing\n{bad}")
    (folder / "data" / "teams" / "b.csv").write_text("text,team\nthe screen is black,tech\n")
    chat = json.dumps({"messages": TURNS, "tools": [{"name": "add"}]})
    broken = json.dumps({"messages": TURNS[:1]})
    lines = f"{chat}\n{broken}\nnot json\n".encode()
    (folder / "data" / "chats" / "1.jsonl.gz").write_bytes(gzip.compress(lines))
    pair = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    (folder / "data" / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    return folder


def looks(folder: Path, *names: str) -> dict[str, dict[str, Any]]:
    done = forked("ingest", *names, "--dry-run", "--json", "-C", folder, loaded=with_models)
    assert done.code == 0, done.err
    return {one["name"]: one for one in json.loads(done.out)}


def test_formats_rejects_and_rows_are_shown_and_nothing_is_stored(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    found = looks(folder)
    # A query's result is all that is written.
    assert [path.name for path in (folder / ".gapmend").iterdir()] == ["cache"]
    assert (found["joined"]["format"], found["joined"]["sampled"]) == ("columns", 5)
    teams = found["teams"]
    assert (teams["format"], teams["why"]) == ("columns", "the spec maps input and output")
    assert (teams["sampled"], teams["rejected"]) == (5, 3)
    assert teams["reasons"] == [
        {
            "reason": "label not in the label set",
            "count": 2,
            "file": "data/teams/a.csv",
            "line": 4,
            "detail": "'nobody'",
        },
        {
            "reason": "empty answer",
            "count": 1,
            "file": "data/teams/a.csv",
            "line": 3,
            "detail": "",
        },
    ]
    texts = [row["text"] for row in teams["rows"]]
    assert texts == [
        "<|user|>Ticket: my invoice\nTeam:<|end|><|assistant|>billing<|end|>",
        "<|user|>Ticket: the screen is black\nTeam:<|end|><|assistant|>tech<|end|>",
    ]
    chats = found["chats"]
    assert chats["why"] == "its first record has messages, whose turns have role, content"
    assert [(r["reason"], r["line"]) for r in chats["reasons"]] == [
        ("no answer: the last turn is not the assistant's", 2),
        ("malformed JSON", 3),
    ]
    assert [row["which"] for row in chats["rows"]] == ["shortest"]
    assert chats["left_out"] == {"logprobs": 1}
    (pair,) = found["pairs"]["rows"]
    assert (pair["kind"], pair["text"].count("good"), pair["rejected"].count("bad")) == (
        "preference",
        1,
        1,
    )


def test_people_get_tables_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    done = forked("ingest", "chats", "--dry-run", "-C", folder, loaded=with_models)
    assert done.code == 0, done.err
    assert "chats: nothing was ingested" in done.out
    assert "data/chats/1.jsonl.gz (train)" in done.out
    assert "malformed JSON" in done.out
    assert "left out   keys of turns: logprobs (in 1 records)" in done.out
    assert "by the chat template of base nano" in done.out
    assert "Four" in done.out
    assert "\u001b" not in done.out


def test_a_base_that_is_not_here_keeps_nobody_from_looking(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    spec = SPEC.replace("{model: nano}", "{model: me/absent}")
    (folder / "gapmend.yaml").write_text(spec)
    found = looks(folder, "pairs")["pairs"]
    assert found["template"].startswith("plainly: ")
    assert found["rows"][0]["text"] == "user: q\nassistant: good"
    assert not (folder / ".gapmend").exists()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    done = forked("ingest", "team", "--dry-run", "-C", folder)
    assert (done.code, done.err.splitlines()[-1]) == (
        2,
        "gapmend: no dataset is called 'team'; expected one of teams, chats, pairs, joined",
    )
    (folder / "data" / "pairs.jsonl").write_text('{"prompt": "q"}\n')
    done = forked("ingest", "pairs", "--dry-run", "-C", folder)
    assert done.code == 2
    assert "TRL's prompt-only form" in done.err.splitlines()[-1]
