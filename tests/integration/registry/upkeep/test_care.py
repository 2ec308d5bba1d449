"""Care of a store with every kind of object: flipped bits, a catalog made again."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from registry.catalog.catalog import Catalog
from registry.catalog.open import open_catalog
from registry.store.objects import Store
from registry.upkeep.erase import erase, erasing
from registry.upkeep.fsck import fsck, tables_of
from registry.upkeep.rebuild import rebuild
from tests.support.care_store import make

SEED = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A store with every kind of object, an erasure too."""
    root = tmp_path_factory.mktemp("made") / ".gapmend"
    store, catalog = make(root)
    with erasing(root):
        erase(store, catalog, [4], reason="", advance=lambda _: None)
    return root


@pytest.fixture
def made(tmp_path: Path, original: Path) -> tuple[Store, Catalog]:
    root = Path(shutil.copytree(original, tmp_path / ".gapmend"))
    return Store(root), Catalog(root, wait_s=5)


def flip(path: Path, draw: random.Random) -> bytes:
    """Flip one bit of a file; returns what it was."""
    before = path.read_bytes()
    data = bytearray(before)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    return before


def flip_many(store: Store, catalog: Catalog, *, objects: int) -> set[str]:
    """Flip a bit in each of so many objects, one after the other; returns what files were hit."""
    draw = random.Random(SEED)
    folders = list(store.folders())
    hit = set()
    for number in range(objects):
        folder = folders[number % len(folders)]
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
        path = draw.choice(files)
        before = flip(path, draw)
        report = fsck(store, catalog)
        place = folder.relative_to(store.root).as_posix()
        assert not report.clean, path
        assert all(found.path.startswith(place) for found in report.findings), report.findings
        path.write_bytes(before)
        hit.add(path.name)
    assert fsck(store, catalog).findings == ()
    return hit


def test_a_flipped_bit_is_found_in_each_of_ten_objects(made) -> None:
    flip_many(*made, objects=10)


@pytest.mark.soak
def test_a_flipped_bit_is_found_in_each_of_a_hundred_objects(made) -> None:
    hit = flip_many(*made, objects=100)
    print(hit)
    assert {"rows.parquet", "refs.parquet", "samples.parquet", "data.bin"} <= hit


def test_a_catalog_is_made_again_table_by_table(made) -> None:
    store, catalog = made

    def tables():
        with open_catalog(store.root, wait_s=5, write=False) as connection:
            names = connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = 'catalog'"
            ).fetchall()
            found = tables_of(connection)
            # Every table is compared: `migrations` says how far the schema is.
            assert {name for (name,) in names} == {*found, "migrations"}
            return {name: sorted(lines, key=str) for name, lines in found.items()}

    before = tables()
    # Every kind of a store is in it, and no table of the index is empty that can have lines.
    kinds = {line[1] for line in before["objects"]}
    assert kinds == {
        *("rows", "uids", "dataset_version", "base", "eval", "gap", "selection", "adapter"),
        *("forgetting", "promotion", "merge", "model", "export", "push", "signature", "metrics"),
        *("reproduction", "removal", "run", "alias", "erasure"),
    }
    assert [name for name, lines in before.items() if not lines] == ["absent"]
    (store.root / "catalog.duckdb").unlink()
    rebuild(store, catalog)
    assert tables() == before
