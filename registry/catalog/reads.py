"""Which stored files a statement reads, so that they are hashed before it does.

The statement is read by DuckDB's own parser: a column or a text that is called as a view is none.
A view over stored files reads all of its kind; `rows_of` reads those of one adapter alone.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from registry.catalog.sql import fill
from registry.catalog.views import PARQUET, all_names, files_behind, mentioned, with_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from duckdb import DuckDBPyConnection

_FEW = "rows_of"
# As the parser writes `SELECT x`, less the x.
_SELECT: dict[str, Any] = {
    "type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []}, "select_list": [],
    "from_table": {"type": "EMPTY", "alias": "", "sample": None}, "where_clause": None,
    "group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING",
    "having": None, "sample": None, "qualify": None,
}  # fmt: skip


def read_by(connection: DuckDBPyConnection, sql: str, params: Sequence[Any] = ()) -> dict[str, str]:
    """Return the files that a statement reads, from the store's `objects/`, with their SHA-256.

    Args:
        connection: a session's, in which the statement's views are made.
        sql: the statement. One that the parser can't write as JSON, such as PIVOT, is taken by
            its words.
        params: values for its `?`.
    """
    parsed = _parsed(connection, sql)
    tables = _named(sql, parsed)
    calls = [call for name, call in _tables_in(parsed) if name == _FEW and call]
    few = [_files_of(connection, arguments, params) for arguments in calls]
    read = {path: sha256 for files in few for path, sha256 in files or ()}
    if few and None not in few:
        tables.remove(_FEW)
    for name in with_sources(tables & set(all_names())):
        if name in PARQUET:
            read |= dict(files_behind(connection, name))
    return read


def views_of(connection: DuckDBPyConnection, sql: str) -> list[str]:
    """Return the views that a statement reads, and those behind them, in an order to be made in.

    Unlike `needed`, a column that is called as a view makes none, and no view at all is none.
    """
    return with_sources(_named(sql, _parsed(connection, sql)) & set(all_names()))


def _named(sql: str, parsed: Any) -> set[str]:
    return set(mentioned(sql)) if parsed is None else {name for name, _ in _tables_in(parsed)}


def _files_of(
    connection: DuckDBPyConnection, arguments: Sequence[Any], params: Sequence[Any]
) -> list[tuple[str, str]] | None:
    """Return the files of an adapter that the statement names so; None where it takes the rest."""
    import duckdb

    asked = {"error": False, "statements": [{"node": _SELECT | {"select_list": arguments}}]}
    try:
        written = connection.execute(fill("SELECT json_deserialize_sql(?)", [json.dumps(asked)]))
        (adapter,) = written.fetchone() or ("",)
        files = f"SELECT DISTINCT path, sha256 FROM files_of(({adapter}))"  # noqa: S608 - locked away
        values = {number: params[int(number) - 1] for number in re.findall(r"\$(\d+)", adapter)}
        return connection.execute(files, values).fetchall()
    except (duckdb.Error, IndexError):  # such as a column of a table around it
        return None


def _parsed(connection: DuckDBPyConnection, sql: str) -> Any:
    found = connection.execute(fill("SELECT json_serialize_sql(?)", [sql])).fetchone()
    parsed = json.loads(found[0]) if found else {"error": True}
    return None if parsed["error"] else parsed


def _tables_in(parsed: Any) -> Iterator[tuple[str, Any]]:
    """The tables, views and functions that a statement reads; a function with its arguments."""
    if isinstance(parsed, dict):
        if parsed.get("type") == "BASE_TABLE":
            yield str(parsed["table_name"]).lower(), None
        if parsed.get("type") == "TABLE_FUNCTION":
            function = parsed["function"]
            yield str(function["function_name"]).lower(), function["children"]
        parsed = list(parsed.values())
    if isinstance(parsed, list):
        for part in parsed:
            yield from _tables_in(part)
