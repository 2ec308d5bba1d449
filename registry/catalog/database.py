"""The catalog file itself: attaching it, its migrations, making it anew.

DuckDB locks its file per process and drops that lock when the process opens the file a second
time, and a fork would share it. So the file is only ever attached to an in-memory connection, under
the lock of registry.store.locks, for one read or one transaction, and detached at once.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry.catalog.sql import fill, literal
from registry.catalog.tables import DERIVED_SINCE, add, derive_all
from registry.errors import GapmendError, MachineError, StoreError, StoreRequestError, damaged
from registry.store.disk import is_disk_full
from registry.store.objects import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from duckdb import DuckDBPyConnection

    from registry.store.objects import ManifestJson

CATALOG_NAME = "catalog.duckdb"
_MIGRATIONS = Path(__file__).parent / "migrations"
_POLL_S = 0.1
# A commit writes the last group of each table that it adds to anew. With DuckDB's own 122,880 rows
# that is 0.9 s at 100,000 adapters, with the smallest groups it allows 0.02 s.
_GROUP = "ROW_GROUP_SIZE 2048"
_log = logging.getLogger("gapmend")


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


@contextmanager
def naming_rebuild(path: Path) -> Iterator[None]:
    """Turn what DuckDB says of a file that it can't make sense of into one line with the way out.

    Raises:
        StoreError: the catalog is damaged.
    """
    import duckdb

    broken = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)
    try:
        yield
    except (*broken, duckdb.SerializationException, duckdb.ConversionException) as error:
        if is_disk_full(error) or "Could not set lock" in str(error):
            raise
        raise _damaged(path, "is damaged", error) from error


def create_catalog(root: Path, manifests: Iterable[ManifestJson]) -> None:
    """Write a new catalog of these manifests beside the old one, then put it in its place.

    The caller holds the lock. Killed at any instant, either catalog is there, whole.
    """
    path = root / CATALOG_NAME
    new = root / f"{CATALOG_NAME}.new"
    for stale in (new, log_of(new)):
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
        for draft in (new, log_of(new)):
            draft.unlink(missing_ok=True)
        raise
    finally:
        connection.close()
    with new.open("rb") as file:
        os.fsync(file.fileno())
    # First the old log: beside the new file it would be replayed into it.
    log_of(path).unlink(missing_ok=True)
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
        attach(connection, path, wait_s=wait_s, write=True)
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
        attach(connection, root / CATALOG_NAME, wait_s=wait_s, write=True)
        with naming_rebuild(root / CATALOG_NAME):
            return dict(connection.execute("SELECT id, manifest FROM catalog.objects").fetchall())
    finally:
        connection.close()


@functools.cache  # the catalog is opened often
def migrations() -> tuple[tuple[int, str], ...]:
    """Every numbered migration, oldest first: (number, SQL)."""
    files = sorted(_MIGRATIONS.glob("[0-9]*.sql"))
    return tuple((int(file.name.partition("_")[0]), file.read_text("utf-8")) for file in files)


def attach(connection: DuckDBPyConnection, path: Path, *, wait_s: float, write: bool) -> None:
    """Attach the file as `catalog`, waiting for other programs; the caller holds the lock.

    Raises:
        UserError: another program has it open after `wait_s`.
        StoreError: it can't be read.
    """
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
                raise _damaged(path, "cannot be read", error) from error
            if time.monotonic() >= deadline:
                raise StoreRequestError(
                    f"the catalog is open in another program, {holder}",
                    where=str(path),
                    fix="close it there and run `gapmend rebuild`: it finds all finished files",
                ) from None
            if not said:
                _log.warning("waiting up to %g s for the catalog, open in %s", wait_s, holder)
                said = True
            time.sleep(_POLL_S)
        except duckdb.Error as error:
            raise _damaged(path, "is damaged", error) from error
        else:
            return


def _damaged(path: Path, what: str, error: Exception) -> GapmendError:
    """Return the error for a catalog that can't be read, for which the machine may be to blame."""
    told = damaged(path, error)
    if isinstance(told, MachineError):
        return told
    return StoreError(f"{path} {what} ({_first_line(error)}). Run `gapmend rebuild`")


def _holder(message: str) -> str | None:
    """Who holds the lock, from DuckDB's message; None when it is about something else."""
    if "Could not set lock" not in message:
        return None
    found = re.search(r"held in (.+?) \(PID (\d+)\)", message)
    return f"process {found[2]} ({found[1]})" if found else "an unknown process"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def schema_number(connection: DuckDBPyConnection) -> int:
    """Return the number of the newest migration that the attached catalog has."""
    import duckdb

    try:
        found = connection.execute("SELECT coalesce(max(number), 0) FROM catalog.migrations")
    except duckdb.CatalogException:  # no such table yet; asking for it first costs 2 ms
        return 0
    row = found.fetchone()
    return int(row[0]) if row else 0


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


def log_of(path: Path) -> Path:
    """Return DuckDB's write-ahead log of a file."""
    return path.with_name(f"{path.name}.wal")
