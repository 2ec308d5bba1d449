"""kill -9 at every kind of instant: what was acknowledged is there, whole, and work goes on."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from registry.catalog.catalog import Catalog
from registry.catalog.open import open_catalog
from registry.store.objects import Store
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild
from tests.e2e.crash.harness import Ended, points, record, run_killed, run_killed_at_time
from tests.support.called import fork

WRITER = Path(__file__).parent / "crash" / "writer.py"
ROUNDS = 2
SEED = 20_250


def acknowledged(ended: Ended) -> list[list[str]]:
    # The last line may be cut short by the kill: a line without its end was not said.
    return [line.split() for line in ended.lines if line.startswith("ack")]


def check_what_is_left(root: Path, ended: Ended) -> None:
    store, catalog = Store(root), Catalog(root)
    report = fsck(store, catalog)
    assert report.clean, report.findings
    uids = []
    for kind, *rest in acknowledged(ended):
        if kind == "ack":
            assert catalog.manifest(rest[1]).kind == rest[0]
            store.get(rest[0], rest[1])
        elif kind == "ack-alias":
            assert catalog.alias(rest[0]) == rest[1]
        else:
            uids.append(int(rest[0]))
    assert uids == sorted(set(uids))
    # An adapter and its run are committed in one transaction: both or neither.
    runs = {manifest.id for manifest in catalog.committed("run")}
    for manifest in catalog.committed("made_adapter"):
        assert {parent.id for parent in manifest.parents} <= runs
    again = catalog.reserve_uids(1)
    assert not uids or again >= max(uids) + 10


def check_finishes(root: Path) -> None:
    ended = run_to_end(root)
    assert ended.code == 0, ended.errors
    assert ended.lines[-1] == "end"
    store, catalog = Store(root), Catalog(root)
    for kind in ("made_dataset", "made_adapter", "run"):
        assert len(catalog.committed(kind)) == ROUNDS
    report = fsck(store, catalog)
    assert report.clean, report.findings
    assert not store.leftovers()
    before = tables(root)
    orphans = sum(finding.problem == "orphan" for finding in report.findings)
    rebuild(store, catalog)
    if not orphans:
        assert tables(root) == before
    assert fsck(store, catalog).findings == ()


def run_to_end(root: Path) -> Ended:
    done = fork([str(WRITER), str(root), str(ROUNDS)])
    return Ended(done.code, tuple(done.out.splitlines()), done.err)


def tables(root: Path) -> dict[str, list[tuple]]:
    with open_catalog(root, wait_s=5, write=False) as connection:
        return {
            name: connection.execute(f"FROM catalog.{name} ORDER BY ALL").fetchall()
            for name in ("objects", "edges", "migrations")
        }


def kill_many(tmp_path: Path, *, at_calls: int, at_times: int) -> Counter:
    """Kill at calls and at times, each on a store of its own; returns kills by kind and site."""
    calls = record([str(WRITER), str(tmp_path / "counted"), str(ROUNDS)])
    hit: Counter = Counter()
    for number, point in enumerate(points(calls, kills=at_calls, seed=SEED)):
        root = tmp_path / f"call-{number}"
        ended = run_killed([str(WRITER), str(root), str(ROUNDS)], point)
        assert ended.code == -9, (point, ended)
        check_what_is_left(root, ended)
        check_finishes(root)
        hit[point.call.kind, point.call.site] += 1
    draw = random.Random(SEED)
    for number in range(at_times):
        root = tmp_path / f"time-{number}"
        command = [str(WRITER), str(root), str(ROUNDS)]
        ended = run_killed_at_time(command, mark="start", seconds=draw.uniform(0, 0.25))
        check_what_is_left(root, ended)
        check_finishes(root)
        hit["time", "killed" if ended.code == -9 else "ended"] += 1
    return hit


@pytest.mark.timeout(900)
def test_five_kills_lose_nothing(tmp_path: Path) -> None:
    hit = kill_many(tmp_path, at_calls=4, at_times=1)
    assert {kind for kind, _ in hit} == {"fsync", "rename", "commit", "time"}


@pytest.mark.soak
@pytest.mark.timeout(3_000)
def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    calls = record([str(WRITER), str(tmp_path / "sites"), str(ROUNDS)])
    sites = {(call.kind, call.site) for call in calls}
    at_calls = max(80, 5 * len(sites))
    hit = kill_many(tmp_path, at_calls=at_calls, at_times=20)
    print(hit)
    assert sum(hit.values()) >= 100
    for site in sites:
        assert hit[site] >= 5, site
    assert hit["time", "killed"] >= 10
