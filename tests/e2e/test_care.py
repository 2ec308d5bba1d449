"""erase, gc, fsck and snapshot as a user calls them, and killed wherever they can be."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.catalog import Catalog
from registry.datasets.versions.row import Row
from registry.store.objects import Store
from registry.upkeep.fsck import fsck
from tests.e2e.crash.harness import points, record, run_killed, run_killed_at_time
from tests.support.called import MAIN, fork, forked
from tests.support.care_store import CANARY, ERASED_UID, eval_meta, make
from tests.support.decode import find
from tests.support.plain_rows import load_rows

SEED = 66
ERASE = ["erase", "--row", str(ERASED_UID), "--reason", "asked to", "--yes"]
GC = ["gc", "--yes"]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A workspace whose store has every kind of object, and what killed processes leave."""
    folder = tmp_path_factory.mktemp("care") / "ws"
    root = folder / ".gapmend"
    store, _ = make(root)
    (folder / "gapmend.yaml").write_text("bases: {nano: {model: nano}}\n")
    for name in ("partial/0.jsonl", "work/train-0123456789abcdef/rows.json", "cache/texts/a.json"):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps([CANARY]) + "\n")
    (root / "fault.log").write_text(f"ValueError: {CANARY}\n")
    for number in range(3):
        with store.draft() as draft:
            (draft / "data.bin").write_bytes(b"x" * 5000)
            orphan = store.put("eval", draft, identity={"orphan": number}, meta=eval_meta())
        os.utime(orphan.path, (1, 1))
    return folder


@pytest.fixture
def workspace(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "ws"))


def call(folder: Path, *args: str, code: int = 0) -> Any:
    done = forked(*args, "-C", folder, "--json")
    assert done.code == code, (done.out, done.err)
    return done.json()


@dataclass(frozen=True)
class Held:
    """What a store acknowledged: ids, and the rows of each version."""

    ids: frozenset[str]
    rows: dict[str, list[Row]]

    @classmethod
    def of(cls, root: Path) -> Held:
        store, catalog = Store(root), Catalog(root, wait_s=5)
        ids = frozenset(row[0] for row in catalog.query("SELECT id FROM objects").rows)
        versions = [one.id for one in catalog.committed("dataset_version")]
        return cls(ids, {one: load_rows(store, one) for one in versions})

    def without(self) -> dict[str, list[Row]]:
        return {
            version: [row for row in rows if row.uid != ERASED_UID]
            for version, rows in self.rows.items()
        }


def check_nothing_is_lost(root: Path, before: Held) -> bool:
    """Check a store after a kill; returns whether the row is erased."""
    now = Held.of(root)
    assert before.ids <= now.ids
    erased = now.ids != before.ids
    assert now.rows == (before.without() if erased else before.rows)
    report = fsck(Store(root), Catalog(root, wait_s=5))
    assert report.clean, report.findings
    return erased


def check_finishes(folder: Path, before: Held) -> None:
    """Call again what was killed: the row is gone, and no trace of it is left."""
    root = folder / ".gapmend"
    if not check_nothing_is_lost(root, before):
        assert call(folder, *ERASE)["erased"]
    call(folder, *GC)
    assert check_nothing_is_lost(root, before)
    assert find(root, CANARY) == set()
    assert call(folder, "gc")["found"] == []
    assert call(folder, "fsck")["findings"] == []


def kill(
    tmp_path: Path, original: Path, verb: list[str], *, at_calls: int, at_times: int
) -> Counter:
    """Kill a verb at calls and at times; returns the kills by kind and site."""
    ready = Path(shutil.copytree(original, tmp_path / "ready"))
    if verb is GC:
        call(ready, *ERASE)
    before = Held.of(original / ".gapmend")

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(ready, tmp_path / name))

    calls = record([MAIN, *verb, "-C", str(fresh("counted"))])
    hit: Counter = Counter()
    for number, point in enumerate(points(calls, kills=at_calls, seed=SEED)):
        folder = fresh(f"call-{number}")
        ended = run_killed([MAIN, *verb, "-C", str(folder)], point)
        assert ended.code == -9, (point, ended)
        check_finishes(folder, before)
        shutil.rmtree(folder)
        hit[point.call.kind, point.call.site] += 1
    draw = random.Random(SEED)
    start = "import sys; print('start', file=sys.stderr, flush=True); "
    command = ["-c", f"{start}from pipeline.cli.main import main; main()"]
    began = time.monotonic()
    assert fork([*command, *verb, "-C", str(fresh("timed"))]).code == 0
    whole = time.monotonic() - began  # on this machine, with what else it has to do
    for number in range(at_times):
        folder = fresh(f"time-{number}")
        ended = run_killed_at_time(
            [*command, *verb, "-C", str(folder)],
            mark="start",
            seconds=whole * draw.uniform(0.1, 0.9),
        )
        check_finishes(folder, before)
        shutil.rmtree(folder)
        hit["time", "killed" if ended.code == -9 else "ended"] += 1
    return hit


@pytest.mark.timeout(600)
def test_an_erasure_killed_anywhere_is_whole_or_not_at_all(tmp_path: Path, original: Path) -> None:
    hit = kill(tmp_path, original, ERASE, at_calls=3, at_times=1)
    assert {kind for kind, _ in hit} == {"fsync", "rename", "commit", "time"}


@pytest.mark.timeout(600)
def test_a_collection_killed_anywhere_loses_nothing(tmp_path: Path, original: Path) -> None:
    hit = kill(tmp_path, original, GC, at_calls=2, at_times=1)
    assert "rename" in {kind for kind, _ in hit}


@pytest.mark.soak
@pytest.mark.timeout(3_500)
@pytest.mark.parametrize("verb", [ERASE, GC], ids=["erase", "gc"])
def test_killed_at_every_site(tmp_path: Path, original: Path, verb: list[str]) -> None:
    counted = Path(shutil.copytree(original, tmp_path / "sites"))
    if verb is GC:
        call(counted, *ERASE)
    calls = record([MAIN, *verb, "-C", str(counted)])
    sites = {(one.kind, one.site) for one in calls}
    at_times = 60
    hit = kill(tmp_path, original, verb, at_calls=max(40, 2 * len(sites)), at_times=at_times)
    print(hit)
    for site in sites:
        assert hit[site] >= 2, site
    assert hit["time", "killed"] >= at_times // 3
    assert sum(hit.values()) >= 100


def test_an_erasure_is_shown_first_and_done_with_yes(workspace: Path) -> None:
    where = ["--where", f"messages[1].content LIKE '%{CANARY}%' -- by name"]
    before = find(workspace / ".gapmend", CANARY)
    looked = call(workspace, "erase", *where)
    assert not looked["erased"]
    assert looked["uids"] == [ERASED_UID]
    kinds = {one["kind"] for one in looked["objects"]}
    assert {"dataset_version", "adapter", "merge", "push"} <= kinds
    assert find(workspace / ".gapmend", CANARY) == before
    done = call(workspace, "erase", *where, "--reason", "asked to", "--yes")
    assert done["erased"]
    left = find(workspace / ".gapmend", CANARY)
    assert {place.split("/")[0] for place in left} == {
        *("cache", "fault.log: utf-8", "partial", "work"),
    }
    seen = call(workspace, "gc")
    assert not seen["removed"]
    assert seen["bytes"] == sum(one["bytes"] for one in seen["found"]) > 15_000
    assert find(workspace / ".gapmend", CANARY) == left
    assert call(workspace, "gc", "--yes")["found"] == seen["found"]
    assert find(workspace / ".gapmend", CANARY) == set()
    assert call(workspace, "sql", "select rows, reason from erasures") == [
        {"rows": 1, "reason": "asked to"}
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["erase"], "no row is meant"),
        (["erase", "--where", "dataset = 'none'"], "no row is as the condition says"),
        (["erase", "--where", "no_such_column = 1"], "no_such_column"),
        (["erase", "--where", "1 = 1); DROP TABLE objects; SELECT (1"], "only reads"),
        (["erase", "--row", "999"], "no row has the number 999"),
        (["snapshot", ".gapmend/copy.duckdb"], "not kept in the store"),
        (["snapshot", "no/such/folder/copy.duckdb"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line(workspace: Path, args: list[str], said: str) -> None:
    answer = call(workspace, *args, code=2)
    assert said in answer["message"]
    assert "\n" not in answer["message"]


def test_nothing_is_erased_while_a_stage_runs(workspace: Path) -> None:
    from filelock import FileLock

    with FileLock(workspace / ".gapmend" / "work" / "train-0123456789abcdef.lock"):
        said = call(workspace, *ERASE, code=2)["message"]
        assert "train-0123456789abcdef" in said
        kept = call(workspace, *GC)
    assert kept["running"] == ["train-0123456789abcdef"]
    assert {one["what"] for one in kept["found"]} <= {"log", "draft", "catalog"}
    assert (workspace / ".gapmend" / "work" / "train-0123456789abcdef" / "rows.json").is_file()


def test_fsck_lists_what_is_wrong_and_answers_1(workspace: Path) -> None:
    assert {one["problem"] for one in call(workspace, "fsck")["findings"]} == {"orphan"}
    path = next((workspace / ".gapmend" / "objects" / "rows").glob("*/rows.parquet"))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    report = call(workspace, "fsck", code=1)
    assert [one["path"] for one in report["findings"] if one["problem"] == "changed"] == [
        path.relative_to(workspace / ".gapmend").as_posix()
    ]


HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
def ask():
    rows = connection.execute("SELECT count(*), count(messages) FROM rows").fetchone()
    saw = connection.execute("SELECT count(*) FROM adapters_that_saw(3)").fetchone()[0]
    objects = connection.execute("SELECT count(*) FROM objects").fetchone()[0]
    print(*rows, saw, objects, flush=True)
ask()
sys.stdin.readline()
ask()
"""


def test_another_program_holds_a_snapshot_while_gapmend_goes_on(workspace: Path) -> None:
    catalog = Catalog(workspace / ".gapmend", wait_s=5)
    views = ["erasures", "rows", "adapters", "lineage"]
    made = call(workspace, "snapshot", "copy.duckdb")
    copy = workspace / "copy.duckdb"
    objects = made["objects"]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(copy)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdin is not None
    first = holder.stdout.readline().split()
    assert first == ["20", "20", "1", str(objects)]
    # Held open for writing: a commit, an erasure and the next snapshot go on all the same.
    catalog.reserve_uids(5)
    call(workspace, *ERASE)
    again = call(workspace, "snapshot", "copy.duckdb")
    assert again["objects"] == objects + 2
    holder.stdin.write("\n")
    holder.stdin.flush()
    # The copy is of its time; the rows that it reads are those of the store, and one is gone.
    assert holder.stdout.readline().split() == ["18", "18", "1", str(objects)]
    holder.stdin.close()
    assert holder.wait(30) == 0
    holder.stdout.close()
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{copy}' AS other (READ_ONLY)")
        for view in views:
            connection.execute(f"FROM other.{view}").fetchall()
        listed = connection.execute("SELECT count(*) FROM other.erasures").fetchall()
    assert listed == [(1,)]
    assert not list(workspace.glob("*.new*"))
