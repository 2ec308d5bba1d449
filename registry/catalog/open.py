"""The one way into the catalog: under the lock, for one read or one transaction.

Whoever opens it first brings an erasure that was decided to its end, makes a catalog that was lost
again from the manifests, and applies the migrations that are missing.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.catalog.database import (
    CATALOG_NAME,
    attach,
    connect,
    create_catalog,
    log_of,
    migrate,
    migrations,
    naming_rebuild,
    schema_number,
)
from registry.catalog.sql import fill
from registry.errors import MachineError, StoreRequestError
from registry.store.disk import one_line_when_full
from registry.store.locks import catalog_lock, is_read_only
from registry.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

MARK_NAME = "catalog.made"  # says that a catalog has been here
# The log beside the file is as durable, but whoever attaches the file reads it again, at 1.5 ms a
# commit. Writing it into the file takes 0.06 s at 100,000 adapters: once in eight commits or so.
_LOG_BYTES = 16 * 2**10
_idle: list[tuple[int, DuckDBPyConnection]] = []


@contextmanager
def open_catalog(root: Path, *, wait_s: float, write: bool) -> Iterator[DuckDBPyConnection]:
    """Attach the catalog as `catalog` for the length of the body; made first if it is missing.

    With `write`, the body is one transaction: committed at its end, rolled back on an error.

    Args:
        root: the store's folder.
        wait_s: seconds to wait, for other gapmend processes and then for other programs.
        write: whether the body changes anything.

    Raises:
        UserError: someone else holds the catalog, the disk is full, or a newer gapmend made it.
        StoreError: the file is not a catalog that can be read.
    """
    with (
        _small_connection() as connection,
        _attached(connection, root, wait_s=wait_s, write=write),
    ):
        yield connection


def snapshot(
    root: Path, *, wait_s: float, only: Collection[str] | None = None
) -> DuckDBPyConnection:
    """Copy the tables `objects` and `edges` into memory; the catalog is free again on return.

    Args:
        root: the store's folder.
        wait_s: seconds to wait for the catalog.
        only: ids of the objects that are wanted, with the edges from them; by default all.

    Raises:
        UserError, StoreError: as `open_catalog`.
    """
    connection = connect()
    wanted = "" if only is None else fill("WHERE {} IN ?", [("", *only)])
    try:
        with _attached(connection, root, wait_s=wait_s, write=False):
            for table, column in (("objects", "id"), ("edges", "child")):
                chosen = f"FROM catalog.{table} {wanted.format(column)}"
                connection.execute(f"CREATE TABLE {table} AS {chosen}")
    except BaseException:
        connection.close()
        raise
    return connection


COPY = "copy"
"""The database of `copied`; its schema `catalog` has the tables."""


def copied(root: Path, *, wait_s: float, tables: Sequence[str]) -> DuckDBPyConnection:
    """Copy tables of the catalog into memory; after `USE copy` they are asked as in the file.

    Args:
        root: the store's folder.
        wait_s: seconds to wait for the catalog.
        tables: their names.

    Raises:
        UserError, StoreError: as `open_catalog`.
    """
    connection = connect()
    try:
        connection.execute(f"ATTACH ':memory:' AS {COPY}; CREATE SCHEMA {COPY}.catalog")
        with _attached(connection, root, wait_s=wait_s, write=False):
            for table in tables:
                connection.execute(
                    f"CREATE TABLE {COPY}.catalog.{table} AS FROM catalog.main.{table}"
                )
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _attached(
    connection: DuckDBPyConnection, root: Path, *, wait_s: float, write: bool
) -> Iterator[None]:
    with catalog_lock(root, wait_s, write=write), one_line_when_full(root):
        path = root / CATALOG_NAME
        fixed = not write and is_read_only(root)
        if fixed and ((root / "erasing").exists() or not path.exists()):
            raise _to_be_written(root)
        if not fixed:
            _prepare(root, wait_s=wait_s)
        try:
            with naming_rebuild(path):
                attach(connection, path, wait_s=wait_s, write=write)
                if _migrations_missing(connection):
                    _reattach_and_migrate(connection, path, wait_s=wait_s, write=write, fixed=fixed)
                if write:
                    connection.execute("BEGIN")
                yield
                if write:
                    connection.execute("COMMIT")
                    keep = "disable" if _log_bytes(path) < _LOG_BYTES else "enable"
                    connection.execute(f"PRAGMA {keep}_checkpoint_on_shutdown")
                # Detaching may write the log into the file, so its errors must be seen here.
                connection.execute("DETACH catalog")
        except BaseException:
            # Closing lets the file go while the lock is still ours.
            connection.close()
            raise


def _prepare(root: Path, *, wait_s: float) -> None:
    """Bring an erasure to its end that was decided, and make a catalog that isn't there."""
    mark = root / MARK_NAME
    if (root / "erasing").exists():
        from registry.catalog.recovery import finish

        finish(root, wait_s=wait_s)
    if not (root / CATALOG_NAME).exists():
        # A store without a mark is new: what is in it waits for its commit. With the mark, the
        # catalog was lost, and the manifests say what was in it.
        create_catalog(root, Store(root).manifests() if mark.exists() else [])
    if not mark.exists():
        mark.touch()


def _to_be_written(root: Path) -> MachineError:
    return MachineError(
        "this store can't be written, and its catalog has to be brought up to date first",
        where=str(root),
        fix="call once as someone who may write there, as in: gapmend status",
    )


@contextmanager
def _small_connection() -> Iterator[DuckDBPyConnection]:
    """Give an in-memory DuckDB that nothing is attached to, and keep it for the next call.

    Making one takes 10 ms. After an error it is closed, which lets go of whatever it had open; a
    forked child leaves its parent's alone.
    """
    process = os.getpid()
    ours = bool(_idle) and _idle[-1][0] == process
    connection = _idle.pop()[1] if ours else connect(threads=1)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
    _idle.append((process, connection))


def _migrations_missing(connection: DuckDBPyConnection) -> bool:
    have = schema_number(connection)
    newest = migrations()[-1][0]
    if have > newest:
        raise StoreRequestError(
            f"the catalog has schema {have}, made by a newer gapmend",
            expected=f"at most {newest}",
            fix="update gapmend",
        )
    return have < newest


def _reattach_and_migrate(
    connection: DuckDBPyConnection, path: Path, *, wait_s: float, write: bool, fixed: bool
) -> None:
    if fixed:
        raise _to_be_written(path.parent)
    connection.execute("DETACH catalog")
    attach(connection, path, wait_s=wait_s, write=True)
    migrate(connection, schema_number(connection))
    connection.execute("DETACH catalog")
    attach(connection, path, wait_s=wait_s, write=write)


def _log_bytes(path: Path) -> int:
    log = log_of(path)
    return log.stat().st_size if log.exists() else 0
