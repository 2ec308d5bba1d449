from __future__ import annotations

from pathlib import Path

import pytest

from registry import attach
from registry.attach import open_catalog
from registry.catalog import Catalog
from registry.errors import StoreError, UserError
from registry.store import ObjectRef, Parent, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".gapmend")


@pytest.fixture
def catalog(store: Store) -> Catalog:
    return Catalog(store.root, wait_s=5)


def made(store: Store, number: int, *parents: Parent, **meta: object) -> ObjectRef:
    return store.put("made", None, identity={"number": number}, parents=parents, meta=meta)


def test_committed_objects_are_found(store: Store, catalog: Catalog) -> None:
    first, second = made(store, 1, colour="red", size=1.5), made(store, 2, colour="red")
    catalog.commit([first])
    assert [found["id"] for found in catalog.committed("made")] == [first.id]
    catalog.commit([first, second])
    catalog.commit([first, second])
    assert [found["id"] for found in catalog.committed("made")] == [first.id, second.id]
    newest = catalog.find("made", colour="red")
    assert newest is not None
    assert newest["id"] == second.id
    by_both = catalog.find("made", number=1, size=1.5)
    assert by_both is not None
    assert by_both == store.manifest(first)
    assert catalog.find("made", number=3) is None
    assert catalog.find("made", number="1") is None
    assert catalog.find("other", number=1) is None


def test_values_are_compared_as_json(store: Store, catalog: Catalog) -> None:
    catalog.commit([made(store, 1, nested={"b": [1, None], "a": "ü"}, nothing=None, yes=True)])
    assert catalog.find("made", nested={"a": "ü", "b": [1, None]}) is not None
    assert catalog.find("made", yes=True) is not None
    assert catalog.find("made", yes=1) is None


def test_runs_are_found_by_stage_and_key(store: Store, catalog: Catalog) -> None:
    run = store.put("run", None, identity={"stage": "train", "key": "k"}, meta={"status": "done"})
    assert catalog.find_run("train", "k") is None
    catalog.commit([run])
    found = catalog.find_run("train", "k")
    assert found is not None
    assert found["meta"]["status"] == "done"
    assert catalog.find_run("train", "other") is None


def test_prefixes(store: Store, catalog: Catalog) -> None:
    refs = [made(store, number) for number in range(40)]
    catalog.commit(refs)
    assert catalog.manifest(refs[3].id[:12])["identity"] == {"number": 3}
    assert catalog.manifest(refs[3].id[:12].upper())["id"] == refs[3].id
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
    assert manifest["parents"] == [{"id": done.id, "role": "run"}]
    assert manifest["meta"]["note"] == "first"
    assert store.manifest(again) == manifest
    # Once committed, it never changes.
    other = store.put("run", None, identity={"stage": "s", "key": "other"})
    catalog.commit([made(store, 1, Parent(other.id, "run")), other])
    assert catalog.manifest(again.id) == manifest == store.manifest(again)


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
    assert catalog.manifest(ref.id) == store.manifest(ref)


def test_nothing_stays_open_between_calls(store: Store, catalog: Catalog) -> None:
    catalog.commit([made(store, 1)])
    catalog.query("FROM objects")
    with open_catalog(store.root, wait_s=0, write=True):
        pass
    assert not (store.root / "catalog.duckdb.wal").exists()
    names = {os_path.name for os_path in Path("/proc/self/fd").iterdir() if os_path.exists()}
    targets = {str((Path("/proc/self/fd") / name).resolve()) for name in names}
    assert not {target for target in targets if "catalog" in target}


def test_every_migration_is_applied_to_the_oldest_catalog(
    store: Store, catalog: Catalog, monkeypatch
) -> None:
    first = made(store, 1)
    with monkeypatch.context() as old:
        oldest = attach.migrations()[:1]
        old.setattr(attach, "migrations", lambda: oldest)
        catalog.commit([first])
    newer = [*attach.migrations(), (9_000, "CREATE TABLE catalog.added (x INTEGER)")]
    with monkeypatch.context() as future:
        future.setattr(attach, "migrations", lambda: newer)
        assert [found["id"] for found in catalog.committed("made")] == [first.id]
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
