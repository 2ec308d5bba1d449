"""A copy of the catalog for other programs: tables, views and macros in one DuckDB file.

gapmend never opens it again, so that a notebook may hold it open for as long as it likes. The views
read the store's Parquet files by their absolute paths; see docs/internals/store.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.catalog.database import connect
from registry.catalog.open import snapshot
from registry.catalog.sql import literal
from registry.catalog.views import make_all_views
from registry.errors import UserError
from registry.store.disk import one_line_when_full
from registry.store.objects import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from registry.catalog.catalog import Catalog


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot's file, and how many objects are in it."""

    file: str
    objects: int


def write_snapshot(catalog: Catalog, file: Path) -> SnapshotFile:
    """Write the catalog as it is now to `file`, in one rename; who has the old one open keeps it.

    Raises:
        UserError: the file is in the store, or its folder isn't there; the catalog can't be
            opened, or the disk is full.
    """
    file = file.resolve()
    root = catalog.root.resolve()
    if file.is_relative_to(root):
        raise UserError("a snapshot is not kept in the store", str(file), f"a file outside {root}")
    if not file.parent.is_dir():
        raise UserError("no such folder", where=str(file.parent))
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    log = draft.with_name(f"{draft.name}.wal")
    try:
        with one_line_when_full(file.parent):
            count = _write(catalog, draft, root)
            with draft.open("rb") as written:
                os.fsync(written.fileno())
            # A log beside the file would be replayed into the new one.
            file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
            draft.replace(file)
            sync_folder(file.parent)
    finally:
        for left in (draft, log):
            left.unlink(missing_ok=True)
    return SnapshotFile(str(file), count)


def _write(catalog: Catalog, draft: Path, root: Path) -> int:
    draft.unlink(missing_ok=True)
    tables = snapshot(catalog.root, wait_s=catalog.wait_s)
    try:
        tables.execute(f"ATTACH {literal(draft)} AS copy (TYPE duckdb)")
        for table in ("objects", "edges"):
            tables.execute(f"CREATE TABLE copy.{table} AS FROM memory.{table}")
        row = tables.execute("SELECT count(*) FROM copy.objects").fetchone()
        tables.execute("DETACH copy")
    finally:
        tables.close()
    # Views name no database: made in a session whose only one is the copy, they work under
    # whatever name somebody attaches it.
    connection = connect()
    try:
        connection.execute(f"ATTACH {literal(draft)} AS copy (TYPE duckdb); USE copy")
        make_all_views(connection, root)
        connection.execute("USE memory; DETACH copy")
    finally:
        connection.close()
    return int(row[0]) if row else 0
