"""Several processes that ingest at once, and a disk that fills up under an ingest."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.catalog import Catalog
from registry.store.objects import Store
from registry.upkeep.fsck import fsck
from tests.support.called import forked
from tests.support.plain_rows import load_rows

NAMES = ("one", "other", "both", "copy")
SPEC = """\
bases: {nano: {model: nano}}
datasets:
  one: {path: one.jsonl}
  other: {path: other.jsonl}
  both: {path: "*.jsonl"}
  copy: {path: one.jsonl}
capabilities: {c: {data: one, answer: exact, goal: 0.8}}
train: {base: nano}
"""


def talk(number: int, words: int = 6) -> str:
    said = " ".join(f"w{number * 31 + place}" for place in range(words))
    turns = [{"from": "human", "value": said}, {"from": "gpt", "value": f"answer {number}"}]
    return json.dumps({"conversations": turns}) + "\n"


def workspace(folder: Path, rows: int = 60, words: int = 6) -> Path:
    """Two files that share a third of their rows, in four datasets of which two are equal."""
    folder.mkdir(exist_ok=True)
    (folder / "gapmend.yaml").write_text(SPEC)
    (folder / "one.jsonl").write_text("".join(talk(n, words) for n in range(rows)))
    shared = range(rows * 2 // 3, rows * 5 // 3)
    (folder / "other.jsonl").write_text("".join(talk(n, words) for n in shared))
    return folder


def ingest(folder: Path, name: str) -> Any:
    done = forked("ingest", name, "-C", folder, "--json")
    assert done.code == 0, done.err
    return done.json()[0]


def said(root: Path, version: str) -> dict[str, tuple[str, str]]:
    """Of each row of a version, by its hash, where it is and what it says."""
    return {
        row.row_hash: (row.split, row.messages[0].content)
        for row in load_rows(Store(root), version)
    }


def check_together(tmp_path: Path, times: int) -> None:
    alone = workspace(tmp_path / "alone")
    expected = {name: ingest(alone, name) for name in NAMES}
    for number in range(times):
        folder = workspace(tmp_path / f"together-{number}")
        with ThreadPoolExecutor(len(NAMES)) as calls:
            each = calls.map(lambda name, where=folder: ingest(where, name), NAMES)
            found = dict(zip(NAMES, each, strict=True))
        root = folder / ".gapmend"
        for name in NAMES:
            assert found[name]["version"] == expected[name]["version"]
            rows = said(root, found[name]["version"])
            assert rows == said(alone / ".gapmend", expected[name]["version"])
        catalog = Catalog(root)
        counted = "SELECT count(DISTINCT row_uid), count(DISTINCT row_hash) FROM rows"
        assert catalog.query(counted).rows == [(100, 100)]
        report = fsck(Store(root), catalog)
        assert report.clean, report.findings


@pytest.mark.timeout(600)
def test_four_processes_ingest_at_once(tmp_path: Path) -> None:
    check_together(tmp_path, 1)


@pytest.mark.soak
@pytest.mark.timeout(3_500)
def test_four_processes_ingest_at_once_fifty_times(tmp_path: Path) -> None:
    check_together(tmp_path, 50)


@pytest.fixture
def small_disk(tmp_path: Path):
    """Mount a file system of 8 MB; skipped where that is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def other_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The version of the second dataset, and its rows, made where there is room."""
    alone = workspace(tmp_path_factory.mktemp("room") / "alone", rows=900, words=120)
    version = ingest(alone, "other")["version"]
    return version, said(alone / ".gapmend", version)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("free", [0, 400_000, 1_000_000])
def test_a_disk_that_fills_up_under_an_ingest(
    small_disk: Path, other_alone: tuple[str, Any], free: int
) -> None:
    """Whatever is full first, it is one line, and with room again the same version is made."""
    folder = workspace(small_disk, rows=900, words=120)
    ingest(folder, "one")
    before = [one.id for one in Catalog(folder / ".gapmend").committed("dataset_version")]
    left = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filler").write_bytes(b"0" * (left - free))
    done = forked("ingest", "other", "-C", folder, "--json")
    (folder / "filler").unlink()
    root = folder / ".gapmend"
    after = [one.id for one in Catalog(root).committed("dataset_version")]
    if free == 0 or done.code != 0:
        assert done.code == 2, done.err
        assert "the disk is full" in done.json()["message"]
        assert "Traceback" not in done.err
        assert after == before
    report = fsck(Store(root), Catalog(root))
    assert report.clean, report.findings
    expected, rows = other_alone
    assert ingest(folder, "other")["version"] == expected
    assert said(root, expected) == rows
