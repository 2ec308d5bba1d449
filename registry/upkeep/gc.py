"""Garbage of a store: what nothing refers to, left by processes that are gone, or made again.

Committed objects all stay. What an erasure has taken out of them is gone already; what it may have
left beside them (caches, drafts, objects that nobody committed) is found here.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from registry.catalog.database import CATALOG_NAME, committed_manifests, create_catalog
from registry.catalog.recovery import PENDING, finish
from registry.models.half import SPEEDS
from registry.store.hashing import HASHES
from registry.store.locks import catalog_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from registry.catalog.catalog import Catalog
    from registry.store.objects import Store

What = Literal[
    "orphan",  # a whole object that was never committed
    "draft",  # files of an object that a process was writing when it was killed
    "catalog",  # parts of the catalog's file that hold nothing any more
    "cache",  # what can be computed again
    "journal",  # answers of an evaluation that was killed, or is kept as a whole
    "workdir",  # the folder of a stage's run that was killed, or is done
    "log",  # a traceback
]
CACHE = "cache"
# No rows: hashes of the bases' files, long to make, and speeds, which decide a base's dtype.
_KEPT_CACHES = frozenset({HASHES, SPEEDS})
# An object is put, and committed when the catalog is free, for which a process waits half a minute.
_SETTLED_S = 60
_FOREIGN_S = 24 * 3600  # nobody writes at one object for so long


@dataclass(frozen=True, slots=True)
class Waste:
    """One thing that can go; `path` is relative to the store's root."""

    what: What
    path: str
    bytes: int
    detail: str


def find_waste(
    store: Store,
    catalog: Catalog,
    *,
    busy: bool,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Waste]:
    """Return what can go, in the order of what and path; changes nothing.

    Args:
        store: the objects.
        catalog: what is committed of them.
        busy: a stage is running: what it may be about to commit or to read is left out.
        advance: told how many objects were looked at.

    Raises:
        UserError, StoreError: the catalog can't be opened.
    """
    with catalog.reading() as connection:
        committed = {
            row[0] for row in connection.execute("SELECT id FROM catalog.objects").fetchall()
        }
        sizes = connection.execute(
            "SELECT free_blocks * block_size FROM pragma_database_size()"
            " WHERE database_name = 'catalog'"
        ).fetchone()
    found = [] if busy else [*_orphans(store, committed, advance), *_caches(store)]
    found += _drafts(store)
    if sizes and sizes[0]:
        found.append(Waste("catalog", CATALOG_NAME, int(sizes[0]), "blocks that are free"))
    return found


def remove_waste(
    store: Store,
    catalog: Catalog,
    found: Iterable[Waste],
    advance: Callable[[int], None] = lambda _: None,
) -> list[Waste]:
    """Remove these, and return those that were there still; committed meanwhile, one stays.

    Each vanishes in one rename before its bytes go: killed at any instant, nothing is half there.

    Raises:
        UserError: the catalog is open in another program.
    """
    gone: list[Waste] = []
    for one in found:
        advance(1)
        path = store.root / one.path
        if one.what == "catalog":
            rewrite(catalog)
        elif one.what == "orphan":
            # Under the lock nobody commits it between the look and the rename.
            with catalog.reading() as connection:
                row = connection.execute(
                    f"SELECT 1 FROM catalog.objects WHERE id = '{path.name}'"  # noqa: S608 - 64 digits
                ).fetchone()
                if row or not path.exists():
                    continue
                aside = _put_aside(store, path)
            _delete(aside)
        elif path.exists():
            _delete(_put_aside(store, path))
        else:
            continue
        gone.append(one)
    return gone


def rewrite(catalog: Catalog) -> None:
    """Write the catalog anew from what is committed: DuckDB keeps what was deleted in its blocks.

    Raises:
        UserError: it is open in another program, or the disk is full.
    """
    import json

    root = catalog.root
    with catalog_lock(root, catalog.wait_s):
        if (root / PENDING).exists():
            finish(root, wait_s=catalog.wait_s)
            return
        known = committed_manifests(root, wait_s=catalog.wait_s)
        create_catalog(root, (json.loads(text) for text in known.values()))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(one.stat().st_size for one in files if one.is_file())


def relative(path: Path, store: Store) -> str:
    """Return a path below the store's root, as it is named in reports."""
    return path.relative_to(store.root).as_posix()


def _orphans(store: Store, committed: set[str], advance: Callable[[int], None]) -> Iterator[Waste]:
    settled = time.time() - _SETTLED_S
    for folder in store.folders():
        advance(1)
        if folder.name not in committed and folder.stat().st_mtime < settled:
            what = "whole, but never committed"
            yield Waste("orphan", relative(folder, store), size_of(folder), what)


def _drafts(store: Store) -> list[Waste]:
    """Drafts whose process is gone, also where another one has its number or the machine its name.

    In a container both come again: every call may be process 7.
    """
    gone = set(store.leftovers())
    here = store.scratch_path().name.partition(".")[0]
    found = []
    for path in sorted(store.drafts.iterdir()) if store.drafts.is_dir() else ():
        host, _, rest = path.name.partition(".")
        if path in gone or (host == here and _is_older(path, rest.partition(".")[0])):
            found.append(
                Waste("draft", relative(path, store), size_of(path), "of a killed process")
            )
        elif host != here and path.stat().st_mtime < time.time() - _FOREIGN_S:
            found.append(
                Waste(
                    "draft",
                    relative(path, store),
                    size_of(path),
                    "a day old, of a machine of another name",
                )
            )
    return found


def _is_older(path: Path, pid: str) -> bool:
    """Whether a draft was there before the process whose number it has began."""
    import psutil

    try:
        return path.stat().st_mtime + 1 < psutil.Process(int(pid)).create_time()
    except (ValueError, psutil.Error, OSError):
        return False


def _caches(store: Store) -> list[Waste]:
    folder = store.root / CACHE
    kept = [] if not folder.is_dir() else sorted(folder.iterdir())
    return [
        Waste("cache", relative(path, store), size_of(path), "made again when it is needed")
        for path in kept
        if path.name not in _KEPT_CACHES
    ]


def _put_aside(store: Store, path: Path) -> Path:
    aside = store.scratch_path()
    aside.parent.mkdir(parents=True, exist_ok=True)
    path.rename(aside)
    return aside


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
