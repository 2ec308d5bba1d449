"""The one place that opens the catalog file.

DuckDB locks its file per process and drops that lock when the process opens the file a second
time, and a fork would share it. So the file is only ever attached to an in-memory connection, under
the lock of registry.lock, for one read or one transaction, and detached at once.
"""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry.derive import DERIVED_SINCE, add, derive_all
from registry.diskfull import is_disk_full, one_line_when_full
from registry.errors import StoreError, UserError
from registry.lock import catalog_lock
from registry.statement import fill, literal
from registry.store import Store, sync_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from duckdb import DuckDBPyConnection

    from registry.store import ManifestJson

CATALOG_NAME = "catalog.duckdb"
MARK_NAME = "catalog.made"  # says that a catalog has been here
_MIGRATIONS = Path(__file__).parent / "migrations"
_POLL_S = 0.1
# A commit writes the last group of each table that it adds to anew. With DuckDB's own 122,880 rows
# that is 0.9 s at 100,000 adapters, with the smallest groups it allows 0.02 s.
_GROUP = "ROW_GROUP_SIZE 2048"
# The log beside the file is as durable, but whoever attaches the file reads it again, at 1.5 ms a
# commit. Writing it into the file takes 0.06 s at 100,000 adapters: once in eight commits or so.
_LOG_BYTES = 16 * 2**10
_idle: list[tuple[int, DuckDBPyConnection]] = []
_log = logging.getLogger("gapmend")


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


@contextmanager
def _attached(
    connection: DuckDBPyConnection, root: Path, *, wait_s: float, write: bool
) -> Iterator[None]:
    with catalog_lock(root, wait_s), one_line_when_full(root):
        path, mark = root / CATALOG_NAME, root / MARK_NAME
        if (root / "erasing").exists():  # an erasure that was decided, and killed before its end
            from registry.pending import finish

            finish(root, wait_s=wait_s)
        if not path.exists():
            # A store without a mark is new: what is in it waits for its commit. With the mark, the
            # catalog was lost, and the manifests say what was in it.
            create_catalog(root, Store(root).manifests() if mark.exists() else [])
        if not mark.exists():
            mark.touch()
        try:
            _attach(connection, path, wait_s=wait_s, write=write)
            if _migrations_missing(connection):
                _reattach_and_migrate(connection, path, wait_s=wait_s, write=write)
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


def connect(*, threads: int | None = None) -> DuckDBPyConnection:
    """Open an in-memory DuckDB that reads no file by a Python variable's name.

    Args:
        threads: one is quicker to start where only a few lines are read; by default, all cores.
    """
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": False
    }
    if threads is not None:
        settings["threads"] = threads
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def create_catalog(root: Path, manifests: Iterable[ManifestJson]) -> None:
    """Write a new catalog of these manifests beside the old one, then put it in its place.

    The caller holds the lock. Killed at any instant, either catalog is there, whole.
    """
    path = root / CATALOG_NAME
    new = root / f"{CATALOG_NAME}.new"
    for stale in (new, _log_of(new)):
        stale.unlink(missing_ok=True)
    connection = connect(threads=1)
    try:
        connection.execute(f"ATTACH {literal(new)} AS catalog (TYPE duckdb, {_GROUP})")
        migrate(connection, 0)
        connection.execute("BEGIN")
        add(connection, manifests)
        derive_all(connection)
        connection.execute("COMMIT")
        connection.execute("DETACH catalog")
    except BaseException:  # a full disk above all: what was written so far would keep it full
        connection.close()
        for draft in (new, _log_of(new)):
            draft.unlink(missing_ok=True)
        raise
    finally:
        connection.close()
    with new.open("rb") as file:
        os.fsync(file.fileno())
    # First the old log: beside the new file it would be replayed into it.
    _log_of(path).unlink(missing_ok=True)
    new.replace(path)
    sync_folder(root)


def refuse_when_open_elsewhere(path: Path, *, wait_s: float) -> None:
    """Wait until no other program has the catalog open; its state does not matter.

    The caller holds the lock. Without this, a program that still writes to the file would lose
    it from under its feet.

    Raises:
        UserError: when it is open elsewhere after `wait_s`.
    """
    if not path.exists():
        return
    connection = connect(threads=1)
    try:
        _attach(connection, path, wait_s=wait_s, write=True)
    except StoreError:
        return  # Damaged: that is what a rebuild is for.
    finally:
        connection.close()


def committed_manifests(root: Path, *, wait_s: float) -> dict[str, str]:
    """Return id -> manifest, as JSON text, of all that the catalog has; nobody else has it open.

    The caller holds the lock.

    Raises:
        UserError, StoreError: as `open_catalog`.
    """
    connection = connect(threads=1)
    try:
        _attach(connection, root / CATALOG_NAME, wait_s=wait_s, write=True)
        return dict(connection.execute("SELECT id, manifest FROM catalog.objects").fetchall())
    finally:
        connection.close()


def migrations() -> list[tuple[int, str]]:
    """Every numbered migration, oldest first: (number, SQL)."""
    files = sorted(_MIGRATIONS.glob("[0-9]*.sql"))
    return [(int(file.name.partition("_")[0]), file.read_text("utf-8")) for file in files]


def _attach(connection: DuckDBPyConnection, path: Path, *, wait_s: float, write: bool) -> None:
    import duckdb

    mode = _GROUP if write else "READ_ONLY"
    statement = f"ATTACH {literal(path)} AS catalog (TYPE duckdb, {mode})"
    deadline = time.monotonic() + wait_s
    said = False
    while True:
        try:
            connection.execute(statement)
        except duckdb.IOException as error:
            holder = _holder(str(error))
            if is_disk_full(error):
                raise
            if holder is None:
                message = f"{path} cannot be read ({_first_line(error)}). Run `gapmend rebuild`"
                raise StoreError(message) from error
            if time.monotonic() >= deadline:
                raise UserError(
                    f"the catalog is open in another program, {holder}",
                    where=str(path),
                    fix="close it there and run `gapmend rebuild`: it finds all finished files",
                ) from None
            if not said:
                _log.warning("waiting up to %g s for the catalog, open in %s", wait_s, holder)
                said = True
            time.sleep(_POLL_S)
        except duckdb.Error as error:
            message = f"{path} is damaged ({_first_line(error)}). Run `gapmend rebuild`"
            raise StoreError(message) from error
        else:
            return


def _holder(message: str) -> str | None:
    """Who holds the lock, from DuckDB's message; None when it is about something else."""
    if "Could not set lock" not in message:
        return None
    found = re.search(r"held in (.+?) \(PID (\d+)\)", message)
    return f"process {found[2]} ({found[1]})" if found else "an unknown process"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _migrations_missing(connection: DuckDBPyConnection) -> bool:
    have = _schema_number(connection)
    newest = migrations()[-1][0]
    if have > newest:
        raise UserError(
            f"the catalog has schema {have}, made by a newer gapmend",
            expected=f"at most {newest}",
            fix="update gapmend",
        )
    return have < newest


def _schema_number(connection: DuckDBPyConnection) -> int:
    import duckdb

    try:
        found = connection.execute("SELECT coalesce(max(number), 0) FROM catalog.migrations")
    except duckdb.CatalogException:  # no such table yet; asking for it first costs 2 ms
        return 0
    row = found.fetchone()
    return int(row[0]) if row else 0


def _reattach_and_migrate(
    connection: DuckDBPyConnection, path: Path, *, wait_s: float, write: bool
) -> None:
    connection.execute("DETACH catalog")
    _attach(connection, path, wait_s=wait_s, write=True)
    migrate(connection, _schema_number(connection))
    connection.execute("DETACH catalog")
    _attach(connection, path, wait_s=wait_s, write=write)


def migrate(connection: DuckDBPyConnection, have: int) -> None:
    """Apply what is newer than `have`, each migration in a transaction of its own."""
    connection.execute("CREATE TABLE IF NOT EXISTS catalog.migrations (number INTEGER PRIMARY KEY)")
    for number, statements in migrations():
        if number > have:
            connection.execute("BEGIN")
            connection.execute(statements)
            if number == DERIVED_SINCE:
                derive_all(connection)
            connection.execute(fill("INSERT INTO catalog.migrations VALUES ?", [(number,)]))
            connection.execute("COMMIT")


def _log_bytes(path: Path) -> int:
    log = _log_of(path)
    return log.stat().st_size if log.exists() else 0


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
