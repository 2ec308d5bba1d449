"""Erasure of rows: from every version, evaluation and selection that holds them, ids unchanged.

An id is what lineage, aliases and pushes refer to, so nothing gets a new one: a version answers as
before, without the rows. What is left of them is an `erasure` object; see versions/erased.py.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.catalog.database import CATALOG_NAME, refuse_when_open_elsewhere
from registry.catalog.recovery import ERASURE, PENDING, finish, publish
from registry.datasets.versions.erased import (
    KIND,
    REDACTED,
    erased_rows,
    keyed_hash,
    store_key,
    write_erased,
)
from registry.errors import StoreRequestError
from registry.store.clock import moment
from registry.store.filenames import ERASED
from registry.store.hashing import digest
from registry.store.locks import catalog_lock
from registry.store.objects import Parent, Store, read_manifest, write_manifest
from registry.upkeep.phrases import Phrases
from registry.upkeep.redact import ErasedContents, other_clusters, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from registry.catalog.catalog import Catalog
    from registry.store.kinds import ErasureMeta
    from registry.store.manifest import Manifest

LOCK = "erase.lock"
# What the rows say, and whether a row that is left says it too. Texts are compared by their MD5:
# they may hold what SQL can't write.
_PARTS = ", ".join(
    f"list_transform(coalesce({turns}, []), lambda turn: turn.{part})"
    for turns in ("messages", "chosen", "rejected")
    for part in ("content", "tool_calls", '"name"')
)
_SAID = f"""
SELECT DISTINCT text FROM (
    SELECT unnest(flatten([{_PARTS}, [tools]])) AS text
    FROM parquet.stored_rows WHERE {{chosen}}
    UNION ALL
    SELECT unnest(json_extract_string(meta::JSON, '$.*')) AS text
    FROM parquet.stored_refs WHERE {{chosen}}
) WHERE text IS NOT NULL
"""  # noqa: S608 - names of our own
_SAME = "SELECT DISTINCT md5(text) FROM ({said}) WHERE md5(text) IN ?"


@dataclass(frozen=True)
class Erasure:
    """A finished erasure: its id, its rows, and kind -> how many objects hold them no more."""

    id: str
    rows: int
    objects: Mapping[str, int]


@contextmanager
def erasing(root: Path) -> Iterator[None]:
    """Let one erasure or collection at a time into a store, and finish one that was killed.

    Raises:
        UserError: another process is at it.
    """
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / LOCK, timeout=0):
            yield
    except Timeout:
        raise StoreRequestError(
            "another process is erasing rows or collecting what is left",
            where=str(root / LOCK),
            fix="wait for it and run again",
        ) from None


def erase(
    store: Store,
    catalog: Catalog,
    uids: Collection[int],
    *,
    reason: str,
    advance: Callable[[int], None],
) -> Erasure:
    """Erase these rows; on return no object of the store has them. The caller holds `erasing`.

    Killed before it is decided, nothing is changed; after that, whoever opens the catalog next
    brings it to its end.

    Args:
        store: where the rows are.
        catalog: the store's.
        uids: of the rows; those that are not there are passed over.
        reason: why, for the record; no content.
        advance: told the number of objects that were looked at since the last call.

    Raises:
        UserError: none of the rows is there, the catalog is open in another program, or the disk
            is full.
        StoreError: an object that can't be read.
    """
    from registry.store.kinds import ErasureMeta

    began = moment(store.root)
    hashes = _hashes(catalog, uids)
    if not hashes:
        raise StoreRequestError(
            "none of these rows is in the store", expected="row_uid of the view rows"
        )
    key = store_key(catalog.committed(ErasureMeta))
    known = {row_hash: keyed_hash(key, row_hash) for row_hash in hashes.values()}
    pairs = [(uid, known[row_hash]) for uid, row_hash in hashes.items()]
    identity = {"key": key.hex(), "rows": digest([[u, k.hex()] for u, k in sorted(pairs)])}
    erasure = digest({"kind": KIND, "identity": identity})
    gone = ErasedContents(
        frozenset(hashes),
        frozenset(known),
        other_clusters(known),
        Phrases(_only_said_by(catalog, list(hashes))),
    )
    with store.draft() as staged:
        touched = _stage(store, staged, gone, erasure, advance, since="")
        committed = _committed(catalog)
        redacted = {one: rows for _, one, rows in touched if rows and one in committed}
        kinds: dict[str, int] = {}
        for kind, _, _ in touched:
            kinds[kind] = kinds.get(kind, 0) + 1
        aside = Store(staged)
        with aside.draft() as draft:
            write_erased(draft / ERASED, pairs)
            aside.put(
                KIND,
                draft,
                identity=identity,
                parents=[Parent(one, REDACTED) for one in sorted(redacted)],
                meta=ErasureMeta(reason=reason, rows=len(pairs), began=began, redacted=redacted),
            )
        shutil.rmtree(aside.drafts)
        _decide(store, catalog, staged, erasure)
    return Erasure(erasure, len(pairs), kinds)


def erase_again(store: Store, catalog: Catalog) -> int:
    """Take erased rows out of what was written by a stage that had read them before the erasure.

    Returns how many objects had some. The caller holds `erasing`.

    Raises:
        UserError, StoreError: as `erase`.
    """
    from registry.store.kinds import ErasureMeta

    erasures = catalog.committed(ErasureMeta)
    if not erasures:
        return 0
    gone = _late(store, erasures, since := min(one.meta.began for one in erasures))
    if gone is None:
        return 0
    erasure = erasures[-1].id
    with store.draft() as staged:
        touched = _stage(store, staged, gone, erasure, lambda _: None, since=since)
        if touched:
            _decide(store, catalog, staged, erasure)
    return len(touched)


def _decide(store: Store, catalog: Catalog, staged: Path, erasure: str) -> None:
    (staged / ERASURE).write_text(json.dumps({"id": erasure}), encoding="utf-8")
    with catalog_lock(store.root, catalog.wait_s):
        if (store.root / PENDING).exists():
            finish(store.root, wait_s=catalog.wait_s)
        refuse_when_open_elsewhere(store.root / CATALOG_NAME, wait_s=catalog.wait_s)
        publish(store, staged)
        finish(store.root, wait_s=catalog.wait_s)


def _stage(
    store: Store,
    staged: Path,
    gone: ErasedContents,
    erasure: str,
    advance: Callable[[int], None],
    *,
    since: str,
) -> list[tuple[str, str, int]]:
    """Write what changes into `staged`; returns kind, id and rows of each object that does.

    Objects that were put and never committed are looked at too: `rebuild` would take them in.
    """
    touched = []
    for folder in store.folders():
        advance(1)
        if folder.parent.name == KIND:
            continue
        manifest = read_manifest(folder)
        if manifest["meta"]["created_at"] < since:
            continue
        draft = staged / "objects" / folder.parent.name / folder.name
        draft.mkdir(parents=True)
        found = redact(folder, manifest, gone, draft, erasure)
        if found is None:
            shutil.rmtree(draft)
            continue
        write_manifest(draft, found.manifest)
        touched.append((folder.parent.name, folder.name, found.rows))
    return touched


def _hashes(catalog: Catalog, uids: Collection[int]) -> dict[int, str]:
    if not uids:
        return {}
    found = catalog.query(
        "SELECT DISTINCT row_uid, row_hash FROM parquet.stored_refs WHERE row_uid IN ?"
        " UNION SELECT row_uid, row_hash FROM parquet.stored_rows WHERE row_uid IN ?",
        [tuple(uids), tuple(uids)],
    )
    return dict(found.rows)


def _only_said_by(catalog: Catalog, uids: Iterable[int]) -> set[str]:
    """Return the texts of these rows that no other row has."""
    these = tuple(uids)
    mine = {row[0] for row in catalog.query(_SAID.format(chosen="row_uid IN ?"), [these] * 2).rows}
    by_hash = {_md5(text): text for text in mine}
    if not by_hash:
        return set()
    others = _SAME.format(said=_SAID.format(chosen="row_uid NOT IN ?"))
    shared = catalog.query(others, [these, these, tuple(by_hash)]).rows
    return mine - {by_hash[row[0]] for row in shared}


def _md5(text: str) -> str:
    import hashlib

    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _committed(catalog: Catalog) -> set[str]:
    with catalog.reading() as connection:
        return {row[0] for row in connection.execute("SELECT id FROM catalog.objects").fetchall()}


def _late(
    store: Store, erasures: Sequence[Manifest[ErasureMeta]], since: str
) -> ErasedContents | None:
    """Return the erased rows that stand in objects made since; None when none does."""
    erased = erased_rows(store, erasures)
    uids: set[int] = set()
    hashes: set[str] = set()
    for folder in store.folders():
        if folder.parent.name == KIND or read_manifest(folder)["meta"]["created_at"] < since:
            continue
        for path in folder.rglob("*.parquet"):
            for uid, row_hash in _named(path):
                if uid in erased.uids and row_hash != "":
                    uids.add(uid)
                if row_hash and row_hash in erased:
                    hashes.add(row_hash)
    if not (uids or hashes):
        return None
    return ErasedContents(frozenset(uids), frozenset(hashes), {}, Phrases(()))


def _named(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield uid and hash of each line, None where there is no such column."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [name for name in ("row_uid", "row_hash") if name in file.schema_arrow.names]
        if not names:
            return
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, names).to_pydict()
            nothing = [None] * len(columns[names[0]])
            yield from zip(
                columns.get("row_uid", nothing), columns.get("row_hash", nothing), strict=True
            )
