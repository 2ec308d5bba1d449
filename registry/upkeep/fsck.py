"""fsck: the check of the store against its manifests, and of the catalog against the store."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from registry.catalog.database import CATALOG_NAME, connect, migrate
from registry.catalog.open import open_catalog
from registry.catalog.tables import add, derive_all
from registry.errors import MachineError, StoreError
from registry.store.filenames import MANIFEST
from registry.store.hashing import file_digest
from registry.store.objects import manifest_text, read_manifest
from registry.upkeep.caches import damaged_caches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from registry.catalog.catalog import Catalog
    from registry.store.objects import ManifestJson, Store

Problem = Literal[
    "changed",  # a file's bytes are not what the manifest says
    "missing",  # a file or a committed object is not there
    "extra",  # a file that no manifest names
    "manifest",  # a manifest that cannot be read, or is not what was committed
    "dangling",  # an edge to an object that is not there
    "cache",  # what can be made again isn't what was written
    "index",  # a table of the catalog that is not what the manifests say
    "orphan",  # a whole object that was never committed: `gapmend rebuild` takes it in
    "leftover",  # a draft of a killed process: the next write removes it
]
# What a kill leaves behind on purpose; nothing is lost by it.
_HARMLESS = frozenset({"orphan", "leftover"})
# What each table says, whatever its own numbers are.
_COMPARED = {
    **{
        table: f"FROM catalog.{table}"
        for table in ("objects", "edges", "adapters", "alias_moves", "removals", "absent")
    },
    "nodes": "SELECT id, kind, created_at, label FROM catalog.nodes",
    "links": """
        SELECT child.id, parent.id, links.role FROM catalog.links
        LEFT JOIN catalog.nodes AS child ON child.number = links.child
        LEFT JOIN catalog.nodes AS parent ON parent.number = links.parent
    """,
}
Tables = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class StoreFinding:
    """One thing that is not as it should be; `path` is relative to the store's root."""

    problem: Problem
    path: str
    detail: str

    @property
    def harmless(self) -> bool:
        """Whether this is only what a killed process leaves, and nothing is damaged."""
        return self.problem in _HARMLESS


@dataclass(frozen=True, slots=True)
class FsckReport:
    """How many objects and bytes were read, and what is wrong, in the order of paths."""

    objects: int
    bytes: int
    findings: tuple[StoreFinding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is damaged; orphans and leftovers of killed processes are allowed."""
        return all(finding.harmless for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self) | {"clean": self.clean}


def fsck(
    store: Store, catalog: Catalog, advance: Callable[[int], None] = lambda _: None
) -> FsckReport:
    """Read and hash every file of every object, and compare with manifests and catalog.

    Changes nothing. A catalog that can't be read is a finding: the objects are looked at still.

    Args:
        store: the objects.
        catalog: what is committed of them.
        advance: told the number of objects that were looked at since the last call.

    Raises:
        UserError: when the catalog is in use, or a newer gapmend made it.
    """
    findings: list[StoreFinding] = []
    committed: dict[str, ManifestJson] | None = None
    try:
        committed, edges = _catalog_state(catalog)
        findings += _check_absent(store, committed)
        findings += _check_edges(committed, edges)
        findings += _check_index(catalog)
    except StoreError as error:
        findings.append(StoreFinding("index", CATALOG_NAME, str(error)))
    findings += _check_folders(store, committed, advance)
    findings += [
        StoreFinding("cache", _relative(path, store), detail)
        for path, detail in damaged_caches(store)
    ]
    for path in store.leftovers():
        findings.append(
            StoreFinding("leftover", _relative(path, store), "a draft of a process that was killed")
        )
    findings.sort(key=lambda finding: (finding.path, finding.problem, finding.detail))
    files = [path for folder in store.folders() for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return FsckReport(sum(1 for _ in store.folders()), size, tuple(findings))


def _catalog_state(catalog: Catalog) -> tuple[dict[str, ManifestJson], list[tuple[str, str, str]]]:
    with open_catalog(catalog.root, wait_s=catalog.wait_s, write=False) as connection:
        objects = connection.execute("SELECT id, manifest FROM catalog.objects").fetchall()
        edges = connection.execute("SELECT child, parent, role FROM catalog.edges").fetchall()
    return {row[0]: json.loads(row[1]) for row in objects}, edges


def _check_edges(
    committed: dict[str, ManifestJson], edges: list[tuple[str, str, str]]
) -> Iterator[StoreFinding]:
    for child, parent, role in edges:
        if parent not in committed:
            detail = f"{child[:12]} names the parent {parent[:12]} ({role}), which is not there"
            yield StoreFinding("dangling", CATALOG_NAME, detail)


def _check_folders(
    store: Store, committed: dict[str, ManifestJson] | None, advance: Callable[[int], None]
) -> Iterator[StoreFinding]:
    """Check each object's files and manifest; `committed` is None where nobody knows."""
    for folder in store.folders():
        advance(1)
        place = _relative(folder, store)
        try:
            manifest = read_manifest(folder)
        except (StoreError, MachineError) as error:
            yield StoreFinding("manifest", place, str(error))
            continue
        yield from _check_files(store, folder, manifest)
        if committed is None:
            pass
        elif folder.name not in committed:
            yield StoreFinding("orphan", place, "complete, but never committed")
        elif committed[folder.name] != manifest:
            yield StoreFinding("manifest", place, "differs from what was committed")
            continue
        if not _as_written(folder / MANIFEST, manifest):
            yield StoreFinding("manifest", place, "its bytes are not those that were written")
        elif unfit := _unfit(folder, manifest["kind"]):
            yield StoreFinding("manifest", place, unfit)


def _unfit(folder: Path, kind: str) -> str | None:
    """Return why a manifest doesn't fit the model of its kind; None if it does."""
    from registry.store.kinds import KINDS
    from registry.store.manifest import Meta, manifest_of

    try:
        text = (folder / MANIFEST).read_bytes()
        manifest_of(text, folder.parent.parent, KINDS.get(kind, Meta))
    except StoreError as error:
        return str(error)
    return None


def _check_files(store: Store, folder: Path, manifest: ManifestJson) -> Iterator[StoreFinding]:
    for name, facts in manifest["files"].items():
        file = folder / name
        try:
            if not file.is_file():
                yield StoreFinding("missing", _relative(file, store), "named by the manifest")
            elif file_digest(file) != facts["sha256"]:
                yield StoreFinding("changed", _relative(file, store), "its SHA-256 is another")
        except OSError as error:  # a sector of the disk, or a permission: the others are read
            detail = f"it can't be read ({error.strerror})"
            yield StoreFinding("changed", _relative(file, store), detail)
    named = {*manifest["files"], MANIFEST}
    for file in sorted(folder.rglob("*")):
        if not file.is_dir() and file.relative_to(folder).as_posix() not in named:
            yield StoreFinding("extra", _relative(file, store), "no manifest names it")


def _check_absent(store: Store, committed: dict[str, ManifestJson]) -> list[StoreFinding]:
    found = []
    for object_id, manifest in committed.items():
        folder = store.objects / manifest["kind"] / object_id
        if not folder.is_dir():
            found.append(
                StoreFinding("missing", _relative(folder, store), "committed, but not there")
            )
    return found


def _as_written(path: Path, manifest: ManifestJson) -> bool:
    """Whether a manifest's file is the text of what it says: a flipped bit may leave the values."""
    return path.read_bytes() == manifest_text(manifest).encode()


def _check_index(catalog: Catalog) -> list[StoreFinding]:
    """Compare the catalog's other tables with what they are derived from, its manifests."""
    with catalog.reading() as connection:
        tables = tables_of(connection)
    return [
        StoreFinding(
            "index", CATALOG_NAME, f"table {table}: {extra} lines too many, {missing} missing"
        )
        for table, extra, missing in differing(tables)
    ]


def _relative(path: Path, store: Store) -> str:
    return path.relative_to(store.root).as_posix()


def tables_of(connection: DuckDBPyConnection) -> Tables:
    """Read the tables of the attached catalog, links by the ids of their ends."""
    return {
        table: connection.execute(statement).fetchall() for table, statement in _COMPARED.items()
    }


def differing(found: Tables) -> list[tuple[str, int, int]]:
    """Compare tables with ones made anew of the manifests among them.

    Returns each table that differs, its lines too many and its lines missing.
    """
    fresh = connect(threads=1)
    try:
        fresh.execute("ATTACH ':memory:' AS catalog")
        migrate(fresh, 0)
        fresh.execute("BEGIN")
        add(fresh, (json.loads(text) for _, _, _, text in found["objects"]))
        derive_all(fresh)
        fresh.execute("COMMIT")
        expected = tables_of(fresh)
    finally:
        fresh.close()
    wrong = []
    for table, lines in found.items():
        here, there = Counter(lines), Counter(expected[table])
        extra, missing = (here - there).total(), (there - here).total()
        if extra or missing:
            wrong.append((table, extra, missing))
    return wrong
