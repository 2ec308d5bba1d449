"""kill -9 inside the real verbs: the next call finishes the work, with the same result."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.catalog import Catalog
from registry.store.objects import Store
from registry.upkeep.fsck import fsck
from tests.e2e.crash.harness import points, record, run_killed, run_killed_at_time
from tests.support.called import MAIN, forked
from tests.support.loaded import Loaded, light, with_models

pytestmark = pytest.mark.xdist_group("with models")
STARTER = Path(__file__).resolve().parents[2] / "pipeline" / "workspace" / "starter"


def workspace(folder: Path) -> Path:
    shutil.copytree(STARTER, folder)
    return folder


def run_verb(verb: str, folder: Path, loaded: Loaded = light) -> Any:
    done = forked(verb, "-C", folder, "--json", timeout=900, loaded=loaded)
    assert done.code == 0, done.err
    return done.json()


def check_store(folder: Path) -> None:
    root = folder / ".gapmend"
    report = fsck(Store(root), Catalog(root))
    assert report.clean, report.findings


def version_of(report: list) -> tuple:
    one = report[0]
    return one["version"], one["rows"], one["splits"]


def check_ingested(folder: Path, expected: tuple) -> None:
    check_store(folder)
    assert version_of(run_verb("ingest", folder)) == expected
    catalog = Catalog(folder / ".gapmend")
    uids = catalog.query("SELECT count(*), count(DISTINCT row_uid), count(messages) FROM rows").rows
    assert uids == [(expected[1],) * 3]
    check_store(folder)


def kill_ingest(tmp_path: Path, *, at_calls: int, at_times: int) -> None:
    expected = version_of(run_verb("ingest", workspace(tmp_path / "whole")))
    calls = record([MAIN, "ingest", "-C", str(workspace(tmp_path / "counted"))])
    for number, point in enumerate(points(calls, kills=at_calls, seed=7)):
        folder = workspace(tmp_path / f"call-{number}")
        ended = run_killed([MAIN, "ingest", "-C", str(folder)], point)
        assert ended.code == -9, (point, ended)
        check_ingested(folder, expected)
    for number in range(at_times):
        folder = workspace(tmp_path / f"time-{number}")
        command = [MAIN, "ingest", "-C", str(folder)]
        run_killed_at_time(command, mark="ingest · tickets", seconds=0.05 * number)
        check_ingested(folder, expected)


@pytest.mark.timeout(900)
def test_a_killed_ingest_is_finished_by_the_next(tmp_path: Path) -> None:
    kill_ingest(tmp_path, at_calls=3, at_times=1)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
def test_an_ingest_killed_everywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    kill_ingest(tmp_path, at_calls=40, at_times=10)


def appended_workspace(folder: Path) -> Path:
    """A dataset of one file, ingested, beside which there is a second one now."""
    (folder / "data").mkdir(parents=True)
    (folder / "gapmend.yaml").write_text(
        "bases: {nano: {model: nano}}\n"
        "datasets: {chat: {path: data, columns: {input: q, output: a}}}\n"
        "capabilities: {c: {data: chat, answer: exact, goal: 0.8}}\n"
        "train: {base: nano}\n"
    )
    for number, rows in enumerate((range(60), range(50, 75))):
        if number:
            run_verb("ingest", folder)
        lines = [f"what is {n} times {n * 7}?,{n}" for n in rows]
        (folder / "data" / f"{number}.csv").write_text("\n".join(["q,a", *lines]))
    return folder


def kill_append(tmp_path: Path, *, at_calls: int) -> None:
    first = appended_workspace(tmp_path / "first")
    whole = shutil.copytree(first, tmp_path / "whole", ignore=shutil.ignore_patterns("cache"))
    expected = version_of(run_verb("ingest", whole))  # not appended: read as a whole
    calls = record([MAIN, "ingest", "-C", str(shutil.copytree(first, tmp_path / "counted"))])
    for number, point in enumerate(points(calls, kills=at_calls, seed=5)):
        folder = shutil.copytree(first, tmp_path / f"call-{number}")
        ended = run_killed([MAIN, "ingest", "-C", str(folder)], point)
        assert ended.code == -9, (point, ended)
        check_store(folder)
        assert version_of(run_verb("ingest", folder)) == expected
        catalog = Catalog(folder / ".gapmend")
        counted = "SELECT count(*), count(DISTINCT row_uid), count(messages) FROM rows"
        rows = catalog.query(f"{counted} WHERE version_id = ?", [expected[0]]).rows
        assert rows == [(expected[1],) * 3]
        check_store(folder)


@pytest.mark.timeout(900)
def test_a_killed_append_is_finished_by_the_next(tmp_path: Path) -> None:
    kill_append(tmp_path, at_calls=2)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
def test_an_append_killed_everywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    kill_append(tmp_path, at_calls=40)


def train_workspace(folder: Path) -> Path:
    """Make a small workspace that has come as far as the selection."""
    workspace(folder)
    spec = folder / "gapmend.yaml"
    text = spec.read_text()
    small = text.replace("budget_rows: 300", "budget_rows: 24").replace("epochs: 4", "epochs: 1")
    assert small != text
    spec.write_text(small)
    table = folder / "data" / "tickets.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:241]))
    run_verb("select", folder, with_models)
    return folder


def kill_train(tmp_path: Path, *, at_calls: int, at_times: int) -> None:
    ready = train_workspace(tmp_path / "ready")

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(ready, tmp_path / name))

    began = time.monotonic()
    expected = run_verb("train", fresh("whole"), with_models)["adapter_id"]
    whole = time.monotonic() - began

    def check(folder: Path) -> None:
        check_store(folder)
        assert run_verb("train", folder, with_models)["adapter_id"] == expected
        check_store(folder)
        found = Catalog(folder / ".gapmend").query("SELECT adapter_id FROM adapters").rows
        assert found == [(expected,)]

    calls = (
        record([MAIN, "train", "-C", str(fresh("counted"))], loaded=with_models) if at_calls else []
    )
    for number, point in enumerate(points(calls, kills=at_calls, seed=11)):
        folder = fresh(f"call-{number}")
        ended = run_killed([MAIN, "train", "-C", str(folder)], point, loaded=with_models)
        assert ended.code == -9, (point, ended)
        check(folder)
    for number in range(at_times):
        folder = fresh(f"time-{number}")
        command = [MAIN, "train", "-C", str(folder)]
        seconds = whole * 0.6 * (number + 1) / (at_times + 1)
        mark = "train · nano"
        ended = run_killed_at_time(command, mark=mark, seconds=seconds, loaded=with_models)
        assert ended.code == -9, ended  # else it was quicker than before, by three times
        check(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_training_is_finished_by_the_next(tmp_path: Path) -> None:
    kill_train(tmp_path, at_calls=0, at_times=1)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
def test_a_training_killed_everywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    kill_train(tmp_path, at_calls=10, at_times=3)
