"""fsck finds every kind of damage; rebuild makes an equal catalog."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from registry.catalog.catalog import Catalog
from registry.catalog.open import open_catalog
from registry.errors import StoreError
from registry.store.objects import ObjectRef, Parent, Store
from registry.upkeep.fsck import fsck
from registry.upkeep.rebuild import rebuild


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".gapmend")


@pytest.fixture
def catalog(store: Store) -> Catalog:
    return Catalog(store.root, wait_s=5)


def put(store: Store, number: int, *parents: Parent) -> ObjectRef:
    with store.draft() as draft:
        (draft / "data.bin").write_bytes(f"{number}".encode() * 100)
        return store.put("made", draft, identity={"number": number}, parents=parents)


@pytest.fixture
def pair(store: Store, catalog: Catalog) -> tuple[ObjectRef, ObjectRef]:
    parent = put(store, 1)
    child = put(store, 2, Parent(parent.id, "source"))
    catalog.commit([parent, child])
    return parent, child


def problems(store: Store, catalog: Catalog) -> list[tuple[str, str]]:
    return [(found.problem, found.path) for found in fsck(store, catalog).findings]


def tables(root: Path) -> dict[str, list[tuple]]:
    with open_catalog(root, wait_s=5, write=False) as connection:
        return {
            name: connection.execute(f"FROM catalog.{name} ORDER BY ALL").fetchall()
            for name in ("objects", "edges", "migrations")
        }


@pytest.mark.usefixtures("pair")
def test_nothing_is_wrong_with_a_fresh_store(store: Store, catalog: Catalog) -> None:
    report = fsck(store, catalog)
    assert report.findings == ()
    assert report.clean
    assert report.objects == 2
    assert report.bytes > 200
    assert json.loads(json.dumps(report.as_json()))["clean"]


def test_a_flipped_bit_is_found(store: Store, catalog: Catalog, pair) -> None:
    file = pair[0].path / "data.bin"
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(data))
    assert problems(store, catalog) == [("changed", f"objects/made/{pair[0].id}/data.bin")]
    assert not fsck(store, catalog).clean


def test_missing_and_extra_files_are_found(store: Store, catalog: Catalog, pair) -> None:
    (pair[0].path / "data.bin").unlink()
    (pair[0].path / "more.bin").write_bytes(b"x")
    shutil.rmtree(pair[1].path)
    assert problems(store, catalog) == sorted(
        [
            ("missing", f"objects/made/{pair[0].id}/data.bin"),
            ("extra", f"objects/made/{pair[0].id}/more.bin"),
            ("missing", f"objects/made/{pair[1].id}"),
        ],
        key=lambda found: found[1],
    )


def test_a_changed_or_unreadable_manifest_is_found(store: Store, catalog: Catalog, pair) -> None:
    path = pair[0].path / "manifest.json"
    path.chmod(0o644)
    manifest = json.loads(path.read_text())
    manifest["meta"]["created_at"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(manifest))
    assert problems(store, catalog) == [("manifest", f"objects/made/{pair[0].id}")]
    path.write_text("{}")
    assert problems(store, catalog) == [("manifest", f"objects/made/{pair[0].id}")]


@pytest.mark.usefixtures("pair")
def test_orphans_and_leftovers_are_harmless(store: Store, catalog: Catalog) -> None:
    orphan = put(store, 3)
    host_pid = next(iter(_leftover_name(store)))
    (store.drafts / host_pid).mkdir()
    report = fsck(store, catalog)
    assert [(found.problem, found.harmless) for found in report.findings] == [
        ("orphan", True),
        ("leftover", True),
    ]
    assert report.clean
    rebuild(store, catalog)
    assert fsck(store, catalog).findings == ()
    assert catalog.manifest(orphan.id).as_json() == store.manifest(orphan)


def _leftover_name(store: Store) -> list[str]:
    import subprocess
    import sys

    code = (
        "import os, sys; from pathlib import Path; from registry.store.objects import Store\n"
        "with Store(Path(sys.argv[1])).draft() as draft:\n    print(draft.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("UPDATE catalog.nodes SET label = 'other' WHERE kind = 'made'", "nodes"),
        ("DELETE FROM catalog.links", "links"),
        ("UPDATE catalog.alias_moves SET seq = 9", "alias_moves"),
        ("INSERT INTO catalog.removals VALUES ('a', 'b')", "removals"),
        ("INSERT INTO catalog.absent VALUES ('a')", "absent"),
        ("DELETE FROM catalog.edges WHERE role = 'source'", "edges"),
    ],
)
def test_an_index_that_says_otherwise_than_the_manifests_is_found(
    store: Store, catalog: Catalog, pair, change: str, table: str
) -> None:
    catalog.move_alias(store, "champion", pair[1].id, reason="best")
    assert problems(store, catalog) == []
    with open_catalog(store.root, wait_s=5, write=True) as connection:
        connection.execute(change)
    found = fsck(store, catalog).findings
    assert {one.problem for one in found} == {"index"}
    assert any(one.detail.startswith(f"table {table}: ") for one in found)
    assert not fsck(store, catalog).clean
    rebuild(store, catalog)
    assert problems(store, catalog) == []


def test_a_bit_that_changes_no_value_of_a_manifest_is_found(store: Store, catalog: Catalog) -> None:
    ref = store.put("made", None, identity={"number": 1}, meta={"p": 1e-30})
    catalog.commit([ref])
    path = ref.path / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("1e-30", "1E-30"))
    assert problems(store, catalog) == [("manifest", f"objects/made/{ref.id}")]


def test_a_dangling_edge_is_found(store: Store, catalog: Catalog) -> None:
    child = put(store, 2, Parent("0" * 64, "source"))
    with pytest.raises(StoreError, match="not committed"):
        catalog.commit([child])
    rebuild(store, catalog)
    assert problems(store, catalog) == [("dangling", "catalog.duckdb")]
    assert not fsck(store, catalog).clean


def test_a_rebuilt_catalog_is_equal(store: Store, catalog: Catalog, pair) -> None:
    catalog.reserve_uids(100)
    catalog.move_alias(store, "champion", pair[1].id, reason="best")
    before = tables(store.root)
    report = rebuild(store, catalog)
    assert report.objects == len(before["objects"]) == 4
    assert report.unreadable == ()
    assert tables(store.root) == before
    assert catalog.alias("champion") == pair[1].id
    assert catalog.reserve_uids(1) == 100


@pytest.mark.usefixtures("pair")
def test_a_damaged_catalog_is_rebuilt(store: Store, catalog: Catalog) -> None:
    before = tables(store.root)
    (store.root / "catalog.duckdb").write_bytes(b"\0" * 5000)
    rebuild(store, catalog)
    assert tables(store.root) == before


def test_an_unreadable_manifest_does_not_stop_a_rebuild(
    store: Store, catalog: Catalog, pair
) -> None:
    path = pair[1].path / "manifest.json"
    path.chmod(0o644)
    path.write_text("{")
    report = rebuild(store, catalog)
    assert report.objects == 1
    assert len(report.unreadable) == 1
    assert pair[1].id in report.unreadable[0]


@pytest.mark.usefixtures("pair")
def test_a_killed_rebuild_leaves_no_stale_log(store: Store, catalog: Catalog) -> None:
    before = tables(store.root)
    (store.root / "catalog.duckdb.new").write_bytes(b"half")
    (store.root / "catalog.duckdb.new.wal").write_bytes(b"half")
    rebuild(store, catalog)
    assert tables(store.root) == before
    assert not list(store.root.glob("*.new*"))
