from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.catalog import catalog as catalog_module
from registry.catalog import database as attach
from registry.catalog import open as catalog_open
from registry.catalog.catalog import Catalog
from registry.catalog.lists import AdapterPage, adapters, alias_history
from registry.catalog.open import open_catalog
from registry.catalog.sql import Value, fill
from registry.errors import StoreError, UserError
from registry.lineage.graph import lineage
from registry.store.objects import ObjectRef, Parent, Store, write_manifest
from registry.upkeep.rebuild import rebuild


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".gapmend")


@pytest.fixture
def catalog(store: Store) -> Catalog:
    return Catalog(store.root, wait_s=5)


RUN = {
    "stage": "train", "key": "k", "status": "done", "started_at": "2026-01-02T03:04:05+00:00",
    "ended_at": "2026-01-02T03:04:06+00:00", "seconds": 1.0, "code_version": 1, "inputs": {},
    "result": {},
}  # fmt: skip


def made(store: Store, number: int, *parents: Parent, **meta: object) -> ObjectRef:
    return store.put("made", None, identity={"number": number}, parents=parents, meta=meta)


def test_committed_objects_are_found(store: Store, catalog: Catalog) -> None:
    first, second = made(store, 1, colour="red", size=1.5), made(store, 2, colour="red")
    catalog.commit([first])
    assert [found.id for found in catalog.committed("made")] == [first.id]
    catalog.commit([first, second])
    catalog.commit([first, second])
    assert [found.id for found in catalog.committed("made")] == [first.id, second.id]
    newest = catalog.find("made", colour="red")
    assert newest is not None
    assert newest.id == second.id
    by_both = catalog.find("made", number=1, size=1.5)
    assert by_both is not None
    assert by_both.as_json() == store.manifest(first)
    assert catalog.find("made", number=3) is None
    assert catalog.find("made", number="1") is None
    assert catalog.find("other", number=1) is None


def test_values_are_compared_as_json(store: Store, catalog: Catalog) -> None:
    catalog.commit([made(store, 1, nested={"b": [1, None], "a": "ü"}, nothing=None, yes=True)])
    assert catalog.find("made", nested={"a": "ü", "b": [1, None]}) is not None
    assert catalog.find("made", yes=True) is not None
    assert catalog.find("made", yes=1) is None


def test_runs_are_found_by_stage_and_key(store: Store, catalog: Catalog) -> None:
    run = store.put("run", None, identity={"stage": "train", "key": "k"}, meta=RUN)
    assert catalog.find_run("train", "k") is None
    catalog.commit([run])
    found = catalog.find_run("train", "k")
    assert found is not None
    assert found.meta.status == "done"
    assert catalog.find_run("train", "other") is None


def test_what_is_committed_soon_waits_for_the_next_transaction(
    store: Store, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Catalog(store.root, wait_s=5)
    alone, *rest = (made(store, number) for number in range(5))
    catalog.commit_soon(alone)
    assert [one.as_json() for one in other.committed("made")] == [store.manifest(alone)]
    with catalog.together():
        catalog.commit_soon(rest[0])
        assert catalog.knows(rest[0])
        assert not other.knows(rest[0])
        catalog.commit([made(store, 9, Parent(rest[0].id, "part"))])
        assert other.knows(rest[0])
        catalog.commit_soon(rest[1])
    assert other.knows(rest[1])

    def fail() -> None:
        with catalog.together():
            catalog.commit_soon(rest[2])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert other.knows(rest[2])
    monkeypatch.setattr(catalog_module, "_MOST_WAIT_S", -1)
    with catalog.together():
        catalog.commit_soon(rest[3])
        assert other.knows(rest[3])


def test_what_is_known_to_be_committed_is_read_from_the_store(
    store: Store, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    attached = catalog_open._attached

    def counted(*given: Any, **named: Any) -> Any:
        opened.append(given)
        return attached(*given, **named)

    monkeypatch.setattr(catalog_open, "_attached", counted)
    ref = store.put("run", None, identity={"stage": "train", "key": "k"}, meta=RUN | {"seed": 1})
    assert catalog.find_run("train", "other") is None  # nothing of it is in the store
    assert not opened
    assert catalog.find_run("train", "k") is None  # put, and not committed
    Catalog(store.root).commit([ref])  # by another process
    for _ in range(3):
        found = catalog.find_run("train", "k")
        assert found is not None
        assert found.as_json() == store.manifest(ref)
        assert catalog.manifest(ref.id).as_json() == store.manifest(ref)
    assert len(opened) == 3
    said = store.manifest(ref) | {"meta": store.manifest(ref)["meta"] | {"seed": 2}}
    with store.draft() as draft:  # as an erasure puts another manifest in its place
        write_manifest(draft, said)
        (draft / "manifest.json").replace(ref.path / "manifest.json")
    assert catalog.manifest(ref.id).as_json() == said
    (ref.path / "manifest.json").unlink()
    found = catalog.find_run("train", "k")
    assert found is not None
    assert found.meta.seed == 1  # lost: the catalog has it still


def test_prefixes(store: Store, catalog: Catalog) -> None:
    refs = [made(store, number) for number in range(40)]
    catalog.commit(refs)
    assert catalog.manifest(refs[3].id[:12]).identity == {"number": 3}
    assert catalog.manifest(refs[3].id[:12].upper()).id == refs[3].id
    with pytest.raises(UserError, match="nothing in the store has the id 'zz'"):
        catalog.manifest("zz")
    with pytest.raises(UserError, match="nothing"):
        catalog.manifest("")
    shared = next(d for d in "0123456789abcdef" if sum(r.id[0] == d for r in refs) > 1)
    with pytest.raises(UserError, match="fits several objects: made"):
        catalog.manifest(shared)


def test_a_commit_is_all_or_nothing(store: Store, catalog: Catalog) -> None:
    good = made(store, 1)
    bad = made(store, 2, Parent("0" * 64, "source"))
    with pytest.raises(StoreError, match="names the parent 000000000000 \\(source\\)"):
        catalog.commit([good, bad])
    assert catalog.committed("made") == []
    catalog.commit([good])
    with store.draft() as draft:
        (draft / "data").write_bytes(b"abc")
        torn = store.put("torn", draft, identity={})
    (torn.path / "data").chmod(0o644)
    (torn.path / "data").write_bytes(b"ab")
    with pytest.raises(StoreError, match="has not the size"):
        catalog.commit([torn])


def test_parents_may_come_in_the_same_commit(store: Store, catalog: Catalog) -> None:
    parent = made(store, 1)
    child = made(store, 2, Parent(parent.id, "source"))
    catalog.commit([child, parent])
    assert catalog.query("SELECT child, parent, role, parent_kind FROM lineage").rows == [
        (child.id, parent.id, "source", "made")
    ]


def test_what_a_failed_run_left_gets_the_parents_of_the_next(
    store: Store, catalog: Catalog
) -> None:
    failed = store.put("run", None, identity={"stage": "s", "key": "failed"})
    made(store, 1, Parent(failed.id, "run"), note="first")
    done = store.put("run", None, identity={"stage": "s", "key": "done"})
    again = made(store, 1, Parent(done.id, "run"), note="second")
    catalog.commit([again, done])
    manifest = catalog.manifest(again.id)
    assert manifest.parents == (Parent(done.id, "run"),)
    assert manifest.meta.as_json()["note"] == "first"
    assert store.manifest(again) == manifest.as_json()
    # Once committed, it never changes.
    other = store.put("run", None, identity={"stage": "s", "key": "other"})
    catalog.commit([made(store, 1, Parent(other.id, "run")), other])
    assert catalog.manifest(again.id) == manifest
    assert manifest.as_json() == store.manifest(again)


def test_newest_is_what_was_committed_last(store: Store, catalog: Catalog) -> None:
    slow = [made(store, 1), made(store, 2)]  # put first, and killed or waiting before its commit
    catalog.commit([made(store, 3)])
    catalog.commit(slow)
    (store.root / "clock").unlink()  # what else says how late it was
    catalog.commit([made(store, 4), made(store, 5)])
    order = [3, 1, 2, 4, 5]
    assert [one.identity["number"] for one in catalog.committed("made")] == order
    newest = catalog.find("made")
    assert newest
    assert newest.identity["number"] == 5
    rebuild(store, catalog)
    assert [one.identity["number"] for one in catalog.committed("made")] == order


def test_an_uncommitted_object_is_dated_by_its_commit_alone(store: Store, catalog: Catalog) -> None:
    ref = made(store, 1, note="first")
    catalog.commit([ref])
    before = store.manifest(ref)
    catalog.commit([made(store, 2)])
    catalog.commit([ref])
    assert store.manifest(ref) == before


def test_uids_are_dense_and_never_given_twice(store: Store, catalog: Catalog) -> None:
    assert [catalog.reserve_uids(n) for n in (3, 1, 10, 1)] == [0, 3, 4, 14]
    (store.root / "catalog.duckdb").unlink()
    assert catalog.reserve_uids(1) == 15
    with pytest.raises(ValueError, match="cannot reserve 0 uids"):
        catalog.reserve_uids(0)


def test_an_alias_moves_and_keeps_its_history(store: Store, catalog: Catalog) -> None:
    one, two = made(store, 1), made(store, 2)
    catalog.commit([one, two])
    assert catalog.alias("champion") is None
    catalog.move_alias(store, "champion", one.id, expect=None, reason="first")
    catalog.move_alias(store, "champion", two.id, expect=one.id, reason="better")
    catalog.move_alias(store, "champion", one.id, reason="back")
    assert catalog.alias("champion") == one.id
    with pytest.raises(StoreError, match="it was moved meanwhile"):
        catalog.move_alias(store, "champion", two.id, expect=two.id)
    with pytest.raises(StoreError, match="it was moved meanwhile"):
        catalog.move_alias(store, "champion", two.id, expect=None)
    with pytest.raises(StoreError, match="not committed"):
        catalog.move_alias(store, "champion", "0" * 64)
    moves = catalog.query("SELECT seq, target, previous, current, reason FROM aliases").rows
    assert moves == [
        (1, one.id, None, False, "first"),
        (2, two.id, one.id, False, "better"),
        (3, one.id, two.id, True, "back"),
    ]


def test_a_lost_catalog_is_made_again_on_the_next_call(store: Store, catalog: Catalog) -> None:
    ref = made(store, 1)
    catalog.commit([ref])
    (store.root / "catalog.duckdb").unlink()
    assert catalog.manifest(ref.id).as_json() == store.manifest(ref)


def test_nothing_stays_open_between_calls(store: Store, catalog: Catalog) -> None:
    catalog.commit([made(store, 1)])
    catalog.query("FROM objects")
    with open_catalog(store.root, wait_s=0, write=True):
        pass
    names = {os_path.name for os_path in Path("/proc/self/fd").iterdir() if os_path.exists()}
    targets = {str((Path("/proc/self/fd") / name).resolve()) for name in names}
    assert not {target for target in targets if "catalog" in target}


def as_the_first_version_did(store: Store, refs: list[ObjectRef]) -> None:
    """Write a catalog of schema 1."""
    number, statements = attach.migrations()[0]
    connection = attach.connect()
    connection.execute(f"ATTACH '{store.root}/catalog.duckdb' AS catalog (TYPE duckdb)")
    connection.execute("CREATE TABLE catalog.migrations (number INTEGER PRIMARY KEY)")
    connection.execute(statements)
    connection.execute(f"INSERT INTO catalog.migrations VALUES ({number})")
    for ref in refs:
        manifest = store.manifest(ref)
        made_at = manifest["meta"]["created_at"].removesuffix("+00:00")
        row = [ref.id, ref.kind, made_at, json.dumps(manifest)]
        connection.execute("INSERT INTO catalog.objects VALUES (?, ?, ?, ?)", row)
        for parent in manifest["parents"]:
            edge = [ref.id, parent["id"], parent["role"]]
            connection.execute("INSERT INTO catalog.edges VALUES (?, ?, ?)", edge)
    connection.close()


def narrow(root: Path) -> dict[str, list[tuple]]:
    """What the narrow tables say, whatever numbers stand for the ids."""
    named = (
        "SELECT child.id, parent.id, role FROM catalog.links"
        " JOIN catalog.nodes AS child ON child.number = links.child"
        " JOIN catalog.nodes AS parent ON parent.number = links.parent ORDER BY ALL"
    )
    with open_catalog(root, wait_s=5, write=False) as connection:
        tables = {
            name: connection.execute(f"FROM catalog.{name} ORDER BY ALL").fetchall()
            for name in ("adapters", "alias_moves", "removals", "absent")
        }
        nodes = "SELECT id, kind, created_at, label FROM catalog.nodes ORDER BY id"
        tables["nodes"] = connection.execute(nodes).fetchall()
        tables["links"] = connection.execute(named).fetchall()
    return tables


def registered(store: Store, catalog: Catalog) -> list[ObjectRef]:
    """A run, three adapters, a removal and moves of two aliases."""
    run = store.put("run", None, identity={"key": "k"}, meta=RUN)
    tuned = [
        store.put(
            "adapter", None, identity={"n": n}, parents=[Parent(run.id, "run")],
            meta={"base": base, "method": "lora", "rank": 8.0, "loss": 0.5, "rows": None},
        )
        for n, base in enumerate(["nano", "it's", "nano"])
    ]  # fmt: skip
    catalog.commit([run, *tuned])
    catalog.move_alias(store, "champion", tuned[0].id, reason="first")
    catalog.move_alias(store, "champion", tuned[1].id, reason="second")
    catalog.move_alias(store, "candidate", tuned[1].id)
    identity = {"object": tuned[2].id}
    gone = store.put("removal", None, identity=identity, parents=[Parent(tuned[2].id, "adapter")])
    catalog.commit([gone])
    return [run, *tuned]


def test_adapters_are_listed_newest_first(store: Store, catalog: Catalog) -> None:
    assert adapters(catalog) == AdapterPage(0, ())
    _, first, second, removed = registered(store, catalog)
    page = adapters(catalog)
    assert (page.total, [row["adapter_id"] for row in page.rows]) == (2, [second.id, first.id])
    assert [row["aliases"] for row in page.rows] == [["candidate", "champion"], []]
    assert page.rows[1] | {"adapter_id": None} == {
        "adapter_id": None, "created_at": store.manifest(first)["meta"]["created_at"], "name": None,
        "base": "nano", "method": "lora", "rank": 8, "round": None, "rows": None, "loss": 0.5,
        "scale": None, "aliases": [],
    }  # fmt: skip
    assert page.rows[0]["base"] == "it's"
    assert [row["adapter_id"] for row in adapters(catalog, base="nano").rows] == [first.id]
    assert adapters(catalog, base="it's").total == 1
    assert adapters(catalog, base="?").total == 0
    assert [row["adapter_id"] for row in adapters(catalog, alias="champion").rows] == [second.id]
    assert adapters(catalog, alias="nobody").total == 0
    newest = adapters(catalog, limit=1)
    assert (newest.total, len(newest.rows)) == (2, 1)
    oldest = adapters(catalog, limit=5, offset=1)
    assert (oldest.total, [row["adapter_id"] for row in oldest.rows]) == (2, [first.id])
    assert removed.id not in {row["adapter_id"] for row in page.rows}


def test_the_history_of_an_alias(store: Store, catalog: Catalog) -> None:
    _, first, second, _ = registered(store, catalog)
    moves = alias_history(catalog, "champion")
    assert [(m.seq, m.target, m.previous, m.reason) for m in moves] == [
        (1, first.id, None, "first"),
        (2, second.id, first.id, "second"),
    ]
    assert moves[0].moved_at < moves[1].moved_at
    assert alias_history(catalog, "nobody") == ()


def test_migration_commit_and_rebuild_derive_the_same(store: Store, catalog: Catalog) -> None:
    registered(store, catalog)
    committed = narrow(store.root)
    assert {name: len(rows) for name, rows in committed.items()} == {
        "adapters": 3, "alias_moves": 3, "removals": 1, "absent": 0, "nodes": 8, "links": 7,
    }  # fmt: skip
    rebuild(store, catalog)
    assert narrow(store.root) == committed
    (store.root / "catalog.duckdb").unlink()
    (store.root / "catalog.duckdb.wal").unlink(missing_ok=True)
    refs = [store.get(manifest["kind"], manifest["id"]) for manifest in store.manifests()]
    as_the_first_version_did(store, refs)
    assert narrow(store.root) == committed


def test_a_parent_that_comes_later_takes_its_place(store: Store, catalog: Catalog) -> None:
    parent = made(store, 1)
    child = made(store, 2, Parent(parent.id, "source"))
    kept = parent.path.rename(store.root / "kept")
    rebuild(store, catalog)
    assert narrow(store.root)["absent"] == [(parent.id,)]
    assert [node.kind for node in lineage(catalog, child.id).nodes] == ["made", "missing"]
    kept.rename(parent.path)
    catalog.commit([parent])
    after = narrow(store.root)
    assert after["absent"] == []
    assert [node.kind for node in lineage(catalog, child.id).nodes] == ["made", "made"]
    rebuild(store, catalog)
    assert narrow(store.root) == after


def test_commits_stay_in_the_log_until_it_is_long(
    store: Store, catalog: Catalog, monkeypatch
) -> None:
    log = store.root / "catalog.duckdb.wal"
    catalog.commit([made(store, 1)])
    assert log.stat().st_size < catalog_open._LOG_BYTES
    monkeypatch.setattr(catalog_open, "_LOG_BYTES", log.stat().st_size)
    catalog.commit([made(store, 2)])
    assert not log.exists()
    assert len(catalog.committed("made")) == 2


def test_each_gives_all_of_a_kind_in_parts(store: Store, catalog: Catalog, monkeypatch) -> None:
    monkeypatch.setattr(catalog_module, "_AT_ONCE", 3)
    for count in (0, 3, 7):
        refs = [made(store, number) for number in range(count)]
        catalog.commit(refs)
        assert [found.id for found in catalog.each("made")] == [ref.id for ref in refs]


def test_what_is_asked_often_loads_no_pandas(store: Store, catalog: Catalog) -> None:
    _, first, *_ = registered(store, catalog)
    code = (
        "import sys; from pathlib import Path; from registry.catalog.catalog import Catalog\n"
        "from registry.catalog.lists import adapters; from registry.lineage.graph import lineage\n"
        "from registry.store.objects import Store\n"
        "root = Path(sys.argv[1]); catalog = Catalog(root)\n"
        "adapters(catalog, base='nano'); lineage(catalog, sys.argv[2], down=True)\n"
        "catalog.move_alias(Store(root), 'x', sys.argv[2]); catalog.find('run', key='k')\n"
        "catalog.query('SELECT ? FROM rows', [1]); print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(store.root), first.id]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_lists_and_sql_read_no_manifest_as_a_model(store: Store, catalog: Catalog) -> None:
    _, first, *_ = registered(store, catalog)
    code = (
        "import sys; from pathlib import Path; from registry.catalog.catalog import Catalog\n"
        "from registry.catalog.lists import adapters; from registry.lineage.graph import lineage\n"
        "catalog = Catalog(Path(sys.argv[1])); adapters(catalog, base='nano')\n"
        "lineage(catalog, sys.argv[2], down=True); catalog.alias('x')\n"
        "catalog.sql('SELECT * FROM adapters'); print('pydantic' in sys.modules)\n"
        "catalog.committed('adapter'); print('pydantic' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(store.root), first.id]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\nTrue\n"


def test_values_are_written_as_sql() -> None:
    values: list[Value] = ["it's", "?", "\\", "'); DROP TABLE x; --", 7, None, Path("/a b"), "ü\n"]
    connection = attach.connect()
    row = connection.execute(fill("SELECT ?, ?, ?, ?, ?, ?, ?, ?", values)).fetchone()
    assert row == (*values[:6], "/a b", "ü\n")
    pairs = fill("FROM (VALUES ?) WHERE col0 IN ?", [[("a", 1), ("b", 2)], ("b", "c")])
    assert connection.execute(pairs).fetchall() == [("b", 2)]
    for params in ([], [1, 2]):
        with pytest.raises(ValueError, match="zip"):
            fill("SELECT ?", params)
    with pytest.raises(ValueError, match="NUL"):
        fill("SELECT ?", ["a\0b"])


def test_every_migration_is_applied_to_the_oldest_catalog(
    store: Store, catalog: Catalog, monkeypatch
) -> None:
    first = made(store, 1)
    as_the_first_version_did(store, [first])
    newer = [*attach.migrations(), (9_000, "CREATE TABLE catalog.added (x INTEGER)")]
    with monkeypatch.context() as future:
        for module in (attach, catalog_open):
            future.setattr(module, "migrations", lambda: newer)
        assert [found.id for found in catalog.committed("made")] == [first.id]
        with open_catalog(store.root, wait_s=1, write=False) as connection:
            assert connection.execute("FROM catalog.added").fetchall() == []
            numbers = connection.execute("FROM catalog.migrations ORDER BY ALL").fetchall()
        assert numbers == [(number,) for number, _ in newer]
        catalog.commit([made(store, 2)])
    with pytest.raises(UserError, match="schema 9000, made by a newer gapmend"):
        catalog.committed("made")


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = [number for number, _ in attach.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_damaged_catalog_says_what_to_do(store: Store, catalog: Catalog) -> None:
    catalog.commit([made(store, 1)])
    (store.root / "catalog.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="Run `gapmend rebuild`") as caught:
        catalog.committed("made")
    assert "\n" not in str(caught.value)
