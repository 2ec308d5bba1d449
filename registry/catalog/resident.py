"""A catalog that is kept in memory by who answers many questions, such as a page.

A question opens no file and waits for nobody, and nobody waits for it. Whether something was
committed since is seen by the catalog's file and its log, whose time and size every commit changes:
then all is copied anew.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING

from registry.catalog.catalog import Catalog
from registry.catalog.open import COPY, copied
from registry.catalog.session import answer, set_up
from registry.catalog.sql import fill

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from registry.catalog.catalog import Stamp
    from registry.catalog.session import QueryResult
    from registry.catalog.sql import Value

_SETTINGS = "SET parquet_metadata_cache = true"  # what a file's end says: it is asked again
_TABLES = ("objects", "edges", "nodes", "links", "adapters", "removals", "alias_moves")


class ResidentCatalog(Catalog):
    """A catalog whose questions are answered from memory; what is written goes to the file."""

    def __init__(self, root: Path, *, wait_s: float = 30) -> None:
        """Remember where the store is; see `Catalog`."""
        super().__init__(root, wait_s=wait_s)
        self._lock = Lock()
        self._held: tuple[Stamp, DuckDBPyConnection] | None = None
        self._numbers = count()

    @contextmanager
    def reading(self) -> Iterator[DuckDBPyConnection]:
        """Give a connection to the copy, in which the tables are called as in the file."""
        cursor = self._copy().cursor()
        try:
            cursor.execute(f"USE {COPY}")
            yield cursor
        finally:
            cursor.close()

    def query(
        self, sql: str, params: Sequence[Value] = (), *, only: Collection[str] | None = None
    ) -> QueryResult:
        """Run our own SELECT over the views, as `Catalog.query` does."""
        with self._views(only) as cursor:
            return answer(cursor, self.root.resolve(), fill(sql, params))

    @contextmanager
    def _views(self, only: Collection[str] | None) -> Iterator[DuckDBPyConnection]:
        """Give a connection with a database of its own, for the views of one question."""
        cursor = self._copy().cursor()
        name = f"views{next(self._numbers)}"
        chosen = "" if only is None else fill("WHERE {} IN ?", [("", *only)])
        try:
            cursor.execute(
                f"ATTACH ':memory:' AS {name}; USE {name}; CREATE SCHEMA parquet;"
                f"CREATE VIEW objects AS FROM {COPY}.catalog.objects {chosen.format('id')};"
                f"CREATE VIEW edges AS FROM {COPY}.catalog.edges {chosen.format('child')}"
            )
            yield cursor
        except BaseException:
            cursor.interrupt()  # closing waits for a query that goes on
            raise
        finally:
            cursor.execute(f"USE memory; DETACH DATABASE IF EXISTS {name}")
            cursor.close()

    def _copy(self) -> DuckDBPyConnection:
        with self._lock:
            now = self.stamp()
            if self._held is None or self._held[0] != now or None in now[:1]:
                connection = copied(self.root, wait_s=self.wait_s, tables=_TABLES)
                set_up(connection, self.root.resolve())
                connection.execute(_SETTINGS)
                # The stamp from before the copy: what is committed meanwhile has another one.
                # Questions that go on keep the old copy until they end.
                self._held = (now, connection)
            return self._held[1]
