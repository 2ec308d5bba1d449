"""SQL over a snapshot of the catalog and the Parquet files of its objects.

The tables are copied into memory and the catalog file is let go before the query runs: a long
question never holds up a training run that wants to commit, and nothing a question does can reach
the catalog. What a query reads is held against the manifests first, as everywhere.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from threading import Timer
from typing import TYPE_CHECKING, Any, Self

from registry.catalog.open import snapshot
from registry.catalog.reads import read_by, views_of
from registry.catalog.sql import literal
from registry.catalog.views import make_views, needed
from registry.errors import UserError, damaged
from registry.store.held import hold
from registry.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    import polars as pl
    from duckdb import DuckDBPyConnection

_FETCHED = 10_000  # rows at a time
_FEW = 10_000
# Functions that a SELECT can call and that do more than read.
_ACTING = re.compile(
    r'\b"?(enable_logging|disable_logging|truncate_duckdb_logs|write_log|checkpoint|'
    r"force_checkpoint|query|json_execute_serialized_sql|enable_profiling|disable_profiling|"
    r'pragma_\w+|nextval|setseed)"?\s*\(',
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns and rows of an answer; `truncated` when there are more rows than were asked for."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool = False


class SqlSession:
    """An in-memory DuckDB with `objects`, `edges` and the views that one query needs."""

    def __init__(self, root: Path, *, wait_s: float, only: Collection[str] | None = None) -> None:
        """Prepare; nothing is opened before `with`.

        Args:
            root: the store's folder.
            wait_s: seconds to wait for the catalog.
            only: ids of the objects to look at; by default all.
        """
        self._only = only
        self._root = root.resolve()
        self._wait_s = wait_s

    def __enter__(self) -> Self:
        """Copy the tables and let the catalog go."""
        self._connection = snapshot(self._root, wait_s=self._wait_s, only=self._only)
        set_up(self._connection, self._root)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection; what it held in memory is gone."""
        if kind is not None:
            self._connection.interrupt()  # closing waits for a query that goes on
        self._connection.close()

    def run(self, sql: str) -> QueryResult:
        """Make the views that a statement needs, run it and fetch its rows."""
        return answer(self._connection, self._root, sql)

    def run_guarded(
        self,
        sql: str,
        params: Sequence[Any],
        max_rows: int | None,
        within_s: float | None = None,
    ) -> QueryResult:
        """Run a user's statement after everything but reading the store is locked away.

        Args:
            sql: the statement.
            params: values for its `?`.
            max_rows: stop after so many rows.
            within_s: stop it after so many seconds.

        Raises:
            UserError: not one SELECT, DuckDB refuses it, or it takes longer.
        """
        with self._guarded(sql, params), self._stopped_after(within_s):
            return _fetch(self._connection, sql, params, max_rows)

    @contextmanager
    def _stopped_after(self, within_s: float | None) -> Iterator[None]:
        import duckdb

        if within_s is None:
            yield
            return
        timer = Timer(within_s, self._connection.interrupt)
        timer.start()
        try:
            yield
        except duckdb.InterruptException:
            raise UserError(
                f"stopped after {within_s:g} s",
                where="sql",
                fix="ask for less, or on the command line, where it may take longer",
            ) from None
        finally:
            timer.cancel()

    def frame_guarded(self, sql: str, params: Sequence[Any]) -> pl.DataFrame:
        """Run a user's statement like `run_guarded`, for a frame with DuckDB's own types.

        Raises:
            UserError: as `run_guarded`.
        """
        with self._guarded(sql, params):
            return _with_integers(self._connection.execute(sql, list(params)).pl())

    @contextmanager
    def _guarded(self, sql: str, params: Sequence[Any]) -> Iterator[None]:
        import duckdb

        try:
            self._check_reads_only(sql)
            with _naming_what_is_damaged(self._root):
                make_views(self._connection, self._root, needed(sql))
                self._lock_away()
                self._hold(sql, params)
                yield
        except duckdb.Error as error:
            raise UserError(_one_line(error), where="sql") from None

    def _check_reads_only(self, sql: str) -> None:
        import duckdb

        statements = self._connection.extract_statements(sql)
        acting = _ACTING.search(sql)
        if acting:
            raise UserError(f"{acting[1]}() is not for reading", where="sql")
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise UserError(
                f"`gapmend sql` only reads, and this is {kinds}",
                where="sql",
                expected="one SELECT statement",
            )

    def _hold(self, sql: str, params: Sequence[Any]) -> None:
        hold(self._root / "objects", read_by(self._connection, sql, params))

    def _lock_away(self) -> None:
        objects = literal(f"{self._root}/objects")
        self._connection.execute(
            f"SET allowed_directories = [{objects}]; SET autoload_known_extensions = false;"
            " SET autoinstall_known_extensions = false; SET allow_community_extensions = false;"
            " SET enable_external_access = false; SET lock_configuration = true"
        )


def set_up(connection: DuckDBPyConnection, root: Path) -> None:
    """Set what every session needs: where large questions spill to, and no progress bars."""
    spill = Store(root).spill_path()
    # A session reads each file once: a copy in memory is of no use. And DuckDB would show
    # progress on stdout where it takes Python for a notebook, as in `python -c`. Rows of large
    # files are looked for by each uid, where they are few, and not by the first and last alone.
    connection.execute(
        f"SET temp_directory = {literal(spill)}; SET enable_external_file_cache = false;"
        f" SET dynamic_or_filter_threshold = {_FEW};"
        " SET enable_progress_bar = false; CREATE SCHEMA parquet"
    )


def answer(connection: DuckDBPyConnection, root: Path, sql: str) -> QueryResult:
    """Make the views that our own statement needs, hold what it reads, and fetch its rows.

    Raises:
        StoreError: a stored file is damaged.
    """
    with _naming_what_is_damaged(root):
        make_views(connection, root, views_of(connection, sql))
        hold(root / "objects", read_by(connection, sql, ()))
        return _fetch(connection, sql, (), None)


@contextmanager
def _naming_what_is_damaged(root: Path) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        if ".parquet" not in str(error):
            raise
        raise damaged(root / "objects", error) from None


def _fetch(
    connection: DuckDBPyConnection, sql: str, params: Sequence[Any], max_rows: int | None
) -> QueryResult:
    cursor = connection.execute(sql, list(params))
    columns = tuple(column[0] for column in cursor.description or ())
    if max_rows is None:  # some at a time, so that a signal is looked at in between
        some = iter(lambda: cursor.fetchmany(_FETCHED), [])
        return QueryResult(columns, list(chain.from_iterable(some)))
    rows = cursor.fetchmany(max_rows + 1)
    return QueryResult(columns, rows[:max_rows], truncated=len(rows) > max_rows)


def _with_integers(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame whose sums of integers are int64 where they fit.

    DuckDB adds integers up as HUGEINT, which Arrow hands over as decimals.
    """
    import polars as pl

    sums = [name for name, kind in frame.schema.items() if kind == pl.Decimal(38, 0)]
    narrow = frame.select(pl.col(sums).cast(pl.Int64, strict=False))
    fits = [name for name in sums if narrow[name].null_count() == frame[name].null_count()]
    return frame.with_columns(narrow.select(fits))


def _one_line(error: Exception) -> str:
    """DuckDB's message without the copy of the query that it points into."""
    text = re.split(r"\n+LINE \d+:", str(error))[0]
    return " ".join(text.split())
