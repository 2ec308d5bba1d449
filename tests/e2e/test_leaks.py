"""`gapmend leaks` as a user calls it: what it prints and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.called import forked

SPEC = """
bases: {nano: {model: nano}}
datasets:
  bank:
    path: {train: train.csv, dev: dev.csv, test: test.csv}
    columns: {input: text, output: label}
  exam:
    path: {test: exam.csv}
    columns: {input: text, output: label}
capabilities: {intent: {data: bank, answer: exact, goal: 0.9}}
train: {base: nano}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "gapmend.yaml").write_text(SPEC)
    for name, text in (
        ("train", "my card was taken by the machine at the station"),
        ("dev", "how do i open an account for my little sister"),
        ("test", "is there a fee for a transfer to another country"),
        ("exam", "where can i see all that i paid for last month"),
    ):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{text},a\n")
    return tmp_path


def test_clean_is_0_and_a_leak_is_1_with_the_row_and_its_item(workspace: Path) -> None:
    clean = forked("leaks", "-C", workspace)
    assert clean.code == 0
    assert "no leak: 1 training rows, 3 items of 3 dev and test sets" in clean.out
    (workspace / "exam.csv").write_text((workspace / "train.csv").read_text())
    leaking = forked("leaks", "--show", "-C", workspace)
    assert leaking.code == 1
    for part in ("exam test", "train.csv:2", "exam.csv:2", "my card was taken"):
        assert part in leaking.out
    data = forked("leaks", "--json", "-C", workspace).json()
    assert (data["clean"], data["leaking"], data["pairs"][0]["exact"]) == (False, 1, 1)
    assert "shown" not in data


def test_an_unknown_thing_is_one_line(workspace: Path) -> None:
    refused = forked("leaks", "nothing", "-C", workspace)
    assert refused.code == 2
    assert refused.err.splitlines()[-1].startswith("gapmend: ")
    assert "Traceback" not in refused.err
