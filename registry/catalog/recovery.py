"""An erasure between its decision and its end: all or nothing, whenever it is killed.

What an erasure changes is written aside, whole, and then gets the name `erasing` in one rename:
from there on it is decided. Whoever opens the catalog next brings it to its end first, under the
catalog's lock, so that nobody sees the half of it. Each step may be done twice.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.catalog.database import CATALOG_NAME, committed_manifests, create_catalog
from registry.errors import MachineError, StoreError
from registry.store.disk import is_disk_full
from registry.store.filenames import MANIFEST
from registry.store.objects import Store, read_manifest, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from registry.store.objects import ManifestJson

PENDING = "erasing"
ERASURE = "erasure.json"  # in that folder: which erasure it is
# A version before the content that it refers to: whoever reads meanwhile finds what is referred to.
_ORDER = ("erasure", "dataset_version")
_LAST = "rows"


def publish(store: Store, staged: Path) -> None:
    """Decide an erasure: what is in `staged` (objects/kind/id/file) takes the objects' places.

    `finish` does it. The caller holds the erasures' lock, so that there is one at a time.
    """
    for path in sorted(staged.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)
        else:
            sync_folder(path)
    sync_folder(staged)
    staged.rename(store.root / PENDING)
    sync_folder(store.root)


def finish(root: Path, *, wait_s: float) -> None:
    """Bring a decided erasure to its end; the caller holds the catalog's lock.

    Raises:
        UserError: the disk is full.
    """
    with saying_that_it_is_decided(root):
        known = committed_manifests(root, wait_s=wait_s) if (root / CATALOG_NAME).exists() else None
        put_in_place(root)
        store = Store(root)
        create_catalog(root, _manifests(store, known))
        drop(store)


@contextmanager
def saying_that_it_is_decided(root: Path) -> Iterator[None]:
    """Say of a disk that is full in the body what is true: the rows are as good as erased.

    Raises:
        UserError: it is full.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise MachineError(
            "an erasure of rows is decided, and the disk is too full to bring it to its end",
            where=str(root),
            fix="free some space: the next command does it",
        ) from error


def put_in_place(root: Path) -> None:
    """Move the files of a decided erasure to where they belong; those that moved before are."""
    store = Store(root)
    for staged in sorted((root / PENDING / "objects").glob("*/*"), key=_turn):
        target = store.objects / staged.parent.name / staged.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.rename(target)
            sync_folder(target.parent)
            continue
        made = target.stat()
        # The manifest last: until then it says of each file what it was.
        files = [path for path in sorted(staged.rglob("*")) if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == MANIFEST):
            path.replace(target / path.relative_to(staged))
        os.utime(target, ns=(made.st_atime_ns, made.st_mtime_ns))  # it is as old as it was
        sync_folder(target)


def drop(store: Store) -> None:
    """Forget a decided erasure that is at its end."""
    aside = store.scratch_path()
    aside.parent.mkdir(parents=True, exist_ok=True)
    (store.root / PENDING).rename(aside)
    sync_folder(store.root)
    shutil.rmtree(aside, ignore_errors=True)


def _turn(staged: Path) -> tuple[int, str]:
    kind = staged.parent.name
    place = _ORDER.index(kind) if kind in _ORDER else len(_ORDER) + (kind == _LAST)
    return place, str(staged)


def _manifests(store: Store, known: Mapping[str, str] | None) -> Iterator[ManifestJson]:
    """Every committed object's manifest, and the erasure's own, as they are in the store now.

    One that can't be read there is as it was committed. Without a catalog all are taken: it was
    lost, and the manifests say what was in it.
    """
    said = (store.root / PENDING / ERASURE).read_text("utf-8")
    erasure = str(json.loads(said)["id"])
    unread = dict(known or {})
    for folder in store.folders():
        if known is not None and folder.name not in known and folder.name != erasure:
            continue
        try:
            manifest = read_manifest(folder)
        except StoreError:
            continue
        unread.pop(folder.name, None)
        yield manifest
    for text in unread.values():
        yield json.loads(text)
