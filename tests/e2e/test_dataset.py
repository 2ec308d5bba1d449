"""`gapmend dataset …` as a user has it: from files to versions, names, differences, exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.called import Called, forked

SPEC = """\
bases: {nano: {model: nano}}
datasets:
  trivia: {path: {train: train.jsonl, test: test.jsonl}, license: CC0-1.0}
capabilities: {c: {data: trivia, answer: exact, goal: 0.8}}
train: {base: nano}
"""
QUESTIONS = (
    ("how many legs has an octopus", "eight"),
    ("which river runs through Vienna", "the Danube"),
    ("what is frozen water called", "ice"),
)


def lines(pairs: tuple[tuple[str, str], ...]) -> str:
    found = ({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
             for q, a in pairs)  # fmt: skip
    return "".join(f"{json.dumps(one)}\n" for one in found)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two versions: in the second, one answer changed and one row came."""
    folder = tmp_path_factory.mktemp("trivia")
    (folder / "gapmend.yaml").write_text(SPEC)
    (folder / "test.jsonl").write_text(lines((("who painted the Mona Lisa", "Leonardo"),)))
    for pairs in (QUESTIONS[:2], (QUESTIONS[0], ("which river runs through Vienna", "Danube"),
                                  QUESTIONS[2])):  # fmt: skip
        (folder / "train.jsonl").write_text(lines(pairs))
        done = forked("ingest", "-C", folder, "--json")
        assert done.code == 0, done.err
    return folder


def dataset(workspace: Path, *arguments: str | Path) -> Called:
    return forked("dataset", *arguments, "-C", workspace)


def as_json(workspace: Path, *arguments: str | Path) -> Any:
    done = dataset(workspace, *arguments, "--json")
    assert done.code == 0, done.err
    return done.json()


def test_versions_are_listed_named_and_compared(workspace: Path) -> None:
    (listed,) = as_json(workspace, "ls")
    assert (listed["name"], listed["splits"]) == ("trivia", {"train": 3, "test": 1})
    first, second = as_json(workspace, "log", "trivia")
    assert (second["added"], second["removed"]) == (2, 1)
    tagged = as_json(workspace, "tag", first["version_id"][:12], "v1", "--expect", "none")
    assert tagged["version"] == first["version_id"]
    moved = dataset(workspace, "tag", "trivia", "v1", "--expect", "none")
    assert (moved.code, "v1 points at" in moved.err) == (1, True)
    found = as_json(workspace, "diff", "trivia@v1", "trivia", "--show", "changed")
    assert {group: found[group] for group in ("same", "added", "removed", "changed")} == {
        "same": 2,
        "added": 1,
        "removed": 0,
        "changed": 1,
    }
    assert found["shown"][0]["after"]["messages"][-1]["content"] == "Danube"
    shown = dataset(workspace, "show", "v1", "--rows", "1")
    assert "how many legs has an octopus" in shown.out
    assert "v1" in shown.out


def test_a_version_is_written_out_once(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = as_json(workspace, "export", "trivia", out, "--format", "trl", "--split", "train")
    assert report["rows"]["splits"] == {"train": 3}
    assert (out / "train.jsonl").read_text() == lines(
        (QUESTIONS[0], ("which river runs through Vienna", "Danube"), QUESTIONS[2])
    )
    again = dataset(workspace, "export", "trivia", out)
    assert again.code == 2
    assert again.err.count("\n") == 1
    assert "something already" in again.err


def test_mistakes_are_one_line(workspace: Path) -> None:
    for arguments, said in (
        (("show", "trivvia"), "did you mean 'trivia'"),
        (("tag", "trivia", "trivia"), "a dataset's name"),
        (("export", "trivia", "x", "--split", "validation"), "no split is called"),
    ):
        done = dataset(workspace, *arguments)
        assert (done.code, said.lower() in done.err.lower()) == (2, True), done.err
        assert done.out == ""
