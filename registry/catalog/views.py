"""SQL over a snapshot of the catalog and the Parquet files of its objects.

The tables are copied into memory and the catalog file is let go before the query runs: a long
question never holds up a training run that wants to commit, and nothing a question does can reach
the catalog. The views are code, not data: they are made for each session, and only those that the
query names, because a view over Parquet costs a look at every file. What a query reads is held
against the manifests first, as everywhere.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from registry.catalog.database import connect
from registry.catalog.open import snapshot
from registry.catalog.sql import fill, literal
from registry.errors import UserError, damaged
from registry.store.filenames import REFS_FILE
from registry.store.held import hold
from registry.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from types import TracebackType

    import polars as pl
    from duckdb import DuckDBPyConnection

_FETCHED = 10_000  # rows at a time
_FOLDER = Path(__file__).parent / "view_files"
# View name -> object kinds and file, as a pattern. Their columns are the tables of
# views/parquet.sql.
_PARQUET = {
    "stored_rows": (("rows",), r"rows\.parquet"),
    "stored_refs": (("dataset_version",), REFS_FILE.pattern),
    "stored_places": (("places",), r"places\.parquet"),
    "stored_rejects": (("dataset_version", "places", "eval", "selection"), r"rejects\.parquet"),
    "stored_samples": (("eval",), r"samples\.parquet"),
    "stored_picks": (("selection",), r"rows\.parquet"),
    "stored_bitmaps": (("selection",), r"bitmaps\.parquet"),
    "stored_metrics": (("metrics",), r"metrics\.parquet"),
}
# Every file has exactly the columns of its table: nothing has to be read to know them.
_ALIKE = frozenset(("stored_bitmaps",))
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
        with self._naming_what_is_damaged():
            self._make_views(sql)
            return self._fetch(sql, (), None)

    @contextmanager
    def _naming_what_is_damaged(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            if ".parquet" not in str(error):
                raise
            raise damaged(self._root / "objects", error) from None

    def _fetch(self, sql: str, params: Sequence[Any], max_rows: int | None) -> QueryResult:
        cursor = self._connection.execute(sql, list(params))
        columns = tuple(column[0] for column in cursor.description or ())
        if max_rows is None:  # some at a time, so that a signal is looked at in between
            some = iter(lambda: cursor.fetchmany(_FETCHED), [])
            return QueryResult(columns, list(chain.from_iterable(some)))
        rows = cursor.fetchmany(max_rows + 1)
        return QueryResult(columns, rows[:max_rows], truncated=len(rows) > max_rows)

    def run_guarded(self, sql: str, params: Sequence[Any], max_rows: int | None) -> QueryResult:
        """Run a user's statement after everything but reading the store is locked away.

        Raises:
            UserError: not one SELECT, or DuckDB refuses it.
        """
        with self._guarded(sql):
            return self._fetch(sql, params, max_rows)

    def frame_guarded(self, sql: str, params: Sequence[Any]) -> pl.DataFrame:
        """Run a user's statement like `run_guarded`, for a frame with DuckDB's own types.

        Raises:
            UserError: as `run_guarded`.
        """
        with self._guarded(sql):
            return _with_integers(self._connection.execute(sql, list(params)).pl())

    @contextmanager
    def _guarded(self, sql: str) -> Iterator[None]:
        import duckdb

        try:
            self._check_reads_only(sql)
            with self._naming_what_is_damaged():
                self._make_views(sql)
                self._lock_away()
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

    def _lock_away(self) -> None:
        objects = literal(f"{self._root}/objects")
        self._connection.execute(
            f"SET allowed_directories = [{objects}]; SET autoload_known_extensions = false;"
            " SET autoinstall_known_extensions = false; SET allow_community_extensions = false;"
            " SET enable_external_access = false; SET lock_configuration = true"
        )

    def _make_views(self, sql: str) -> None:
        spill = Store(self._root).spill_path()
        # A session reads each file once: a copy in memory is of no use. And DuckDB would show
        # progress on stdout where it takes Python for a notebook, as in `python -c`.
        self._connection.execute(
            f"SET temp_directory = {literal(spill)}; SET enable_external_file_cache = false;"
            " SET enable_progress_bar = false; CREATE SCHEMA parquet"
        )
        make_views(self._connection, self._root, _needed(sql))
        for name in self._read_by(sql):
            hold(self._root / "objects", dict(_files(self._connection, name)))

    def _read_by(self, sql: str) -> list[str]:
        """The views of stored files that a statement reads, by DuckDB's own parser.

        A column of the same name, such as `rows`, is none. Statements that it can't write as JSON,
        such as PIVOT, are taken by their words.
        """
        asked = fill("SELECT json_serialize_sql(?)", [sql])
        found = self._connection.execute(asked).fetchone()
        parsed = json.loads(found[0]) if found else {"error": True}
        read = _mentioned(sql) if parsed["error"] else set(_tables_in(parsed)) & set(_all_names())
        return [name for name in _with_sources(read) if name in _PARQUET]


def _with_integers(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame whose sums of integers are int64 where they fit.

    DuckDB adds integers up as HUGEINT, which Arrow hands over as decimals.
    """
    import polars as pl

    sums = [name for name, kind in frame.schema.items() if kind == pl.Decimal(38, 0)]
    narrow = frame.select(pl.col(sums).cast(pl.Int64, strict=False))
    fits = [name for name in sums if narrow[name].null_count() == frame[name].null_count()]
    return frame.with_columns(narrow.select(fits))


def make_all_views(connection: DuckDBPyConnection, root: Path) -> None:
    """Make every view and macro where the tables `objects` and `edges` are; see `SqlSession`."""
    connection.execute("CREATE SCHEMA parquet")
    make_views(connection, root, _needed(""))


def make_views(connection: DuckDBPyConnection, root: Path, names: Sequence[str]) -> None:
    """Make these views, in an order that can be made, over the objects under `root`."""
    objects = literal(f"{root}/objects/")
    path = f"{objects} || kind || '/' || id || '/' || file"
    connection.execute(f"CREATE MACRO parquet.path_of(kind, id, file) AS {path}")
    for name in names:
        if name in _PARQUET:
            _make_stored(connection, root, name)
        else:
            connection.execute(_definition(name))


def _make_stored(connection: DuckDBPyConnection, root: Path, name: str) -> None:
    """Make a view of every committed object's file of one kind, typed also when there is none.

    The files are listed by the catalog and not globbed: what a killed process left is not
    read, and a damaged orphan disturbs nobody. A join by `filename`, with parquet.path_of, opens
    the files that match alone; one by `object_id` opens all.
    """
    files = _files(connection, name)
    connection.execute(_columns(name))
    view = f"SELECT *, NULL::VARCHAR AS filename FROM parquet.{name}_columns"  # noqa: S608 - ours
    if files:
        paths = ", ".join(literal(root / "objects" / path) for path, _ in files)
        union = "" if name in _ALIKE else ", union_by_name = true"
        read = f"read_parquet([{paths}], filename = true{union})"
        found = "SELECT *, string_split(filename, '/')[-2] AS object_id"
        view += f" UNION ALL BY NAME {found} FROM {read}"
    connection.execute(f"CREATE VIEW parquet.{name} AS {view}")


def _files(connection: DuckDBPyConnection, name: str) -> list[tuple[str, str]]:
    """The files of a view, from the store's `objects/`, in its order, with their SHA-256."""
    kinds, file = _PARQUET[name]
    listing = (
        "SELECT kind || '/' || id || '/' || name, manifest->'files'->name->>'sha256'"
        " FROM (SELECT kind, id, created_at, manifest,"
        " unnest(json_keys(manifest, '$.files')) AS name FROM objects WHERE kind IN ?)"
        " WHERE regexp_full_match(name, ?) ORDER BY created_at, id, length(name), name"
    )
    return connection.execute(fill(listing, [kinds, file])).fetchall()


@cache
def stored_columns(name: str) -> tuple[tuple[str, str], ...]:
    """Return name and type of each column of the Parquet files behind a view such as stored_rows.

    `object_id`, which every view has and no file, is left out.
    """
    connection = connect(threads=1)
    try:
        connection.execute("CREATE SCHEMA parquet")
        connection.execute(_columns(name))
        found = connection.execute(f"DESCRIBE parquet.{name}_columns").fetchall()
    finally:
        connection.close()
    return tuple((row[0], row[1]) for row in found if row[0] != "object_id")


def _needed(sql: str) -> list[str]:
    """The views that a query names, and those behind them, in an order that can be made.

    A word in a comment or a column of the same name only makes a view too many. A query that
    names none (SHOW TABLES) gets all.
    """
    return _with_sources(_mentioned(sql) or _all_names())


def _with_sources(names: Iterable[str]) -> list[str]:
    ordered: list[str] = []
    for name in sorted(names):
        _add_with_sources(name, ordered)
    return ordered


def _add_with_sources(name: str, ordered: list[str]) -> None:
    if name in ordered:
        return
    if name not in _PARQUET:
        read = re.findall(r"\b(?:FROM|JOIN)\s+(?:parquet\.)?(\w+)", _definition(name))
        for source in sorted(set(read) & set(_all_names())):
            _add_with_sources(source, ordered)
    ordered.append(name)


def _mentioned(sql: str) -> set[str]:
    return set(re.findall(r"\w+", sql.lower())) & set(_all_names())


def _tables_in(parsed: Any) -> Iterator[str]:
    """The tables, views and table functions in a statement that DuckDB has written as JSON."""
    if isinstance(parsed, dict):
        if parsed.get("type") == "BASE_TABLE":
            yield str(parsed["table_name"]).lower()
        if parsed.get("type") == "TABLE_FUNCTION":
            yield str(parsed["function"]["function_name"]).lower()
        parsed = list(parsed.values())
    if isinstance(parsed, list):
        for part in parsed:
            yield from _tables_in(part)


@cache
def _all_names() -> tuple[str, ...]:
    files = sorted(_FOLDER.glob("*.sql"))
    return (*_PARQUET, *(file.stem for file in files if file.stem != "parquet"))


@cache
def _definition(name: str) -> str:
    """The CREATE statement of a view, without the comments above it."""
    text = (_FOLDER / f"{name}.sql").read_text("utf-8")
    return re.sub(r"--[^\n]*", "", text).strip()


@cache
def _columns(name: str) -> str:
    """The CREATE TABLE statement that types a Parquet view."""
    text = re.sub(r"--[^\n]*", "", (_FOLDER / "parquet.sql").read_text("utf-8"))
    found = re.search(rf"CREATE TABLE parquet\.{name}_columns \(.*?\);", text, re.DOTALL)
    if found is None:
        message = f"views/parquet.sql has no table {name}_columns"
        raise LookupError(message)
    return found[0]


def _one_line(error: Exception) -> str:
    """DuckDB's message without the copy of the query that it points into."""
    text = re.split(r"\n+LINE \d+:", str(error))[0]
    return " ".join(text.split())
