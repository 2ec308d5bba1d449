"""The views: code, not data, made for each session over the tables `objects` and `edges`.

Only those that a query names are made, because a view over Parquet costs a look at every file.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from registry.catalog.database import connect
from registry.catalog.sql import fill, literal
from registry.store.filenames import REFS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb import DuckDBPyConnection

_FOLDER = Path(__file__).parent / "view_files"
# View name -> object kinds and file, as a pattern. Their columns are the tables of
# views/parquet.sql.
PARQUET = {
    "stored_rows": (("rows",), r"rows\.parquet"),
    "stored_refs": (("dataset_version",), REFS_FILE.pattern),
    "stored_places": (("places",), r"places\.parquet"),
    "stored_rejects": (("dataset_version", "places", "eval", "selection"), r"rejects\.parquet"),
    "stored_samples": (("eval",), r"samples\.parquet"),
    "stored_picks": (("selection",), r"rows\.parquet"),
    "stored_bitmaps": (("selection",), r"bitmaps\.parquet"),
    "stored_metrics": (("metrics",), r"metrics\.parquet"),
}
_DIGITS = 64  # of an id
# Every file has exactly the columns of its table: nothing has to be read to know them.
_ALIKE = frozenset(("stored_bitmaps",))


def make_all_views(connection: DuckDBPyConnection, root: Path) -> None:
    """Make every view and macro where the tables `objects` and `edges` are; see `SqlSession`."""
    connection.execute("CREATE SCHEMA parquet")
    make_views(connection, root, needed(""))


def make_views(connection: DuckDBPyConnection, root: Path, names: Sequence[str]) -> None:
    """Make these views, in an order that can be made, over the objects under `root`."""
    objects = literal(f"{root}/objects/")
    path = f"{objects} || kind || '/' || id || '/' || file"
    connection.execute(f"CREATE MACRO parquet.path_of(kind, id, file) AS {path}")
    for name in names:
        if name in PARQUET:
            _make_stored(connection, root, name)
        else:
            connection.execute(_definition(name))


def _make_stored(connection: DuckDBPyConnection, root: Path, name: str) -> None:
    """Make a view of every committed object's file of one kind, typed also when there is none.

    The files are listed by the catalog and not globbed: what a killed process left is not
    read, and a damaged orphan disturbs nobody. A join by `filename`, with parquet.path_of, opens
    the files that match alone; one by `object_id` opens all.
    """
    files = files_behind(connection, name)
    connection.execute(_columns(name))
    view = f"SELECT *, NULL::VARCHAR AS filename FROM parquet.{name}_columns"  # noqa: S608 - ours
    if files:
        paths = ", ".join(literal(root / "objects" / path) for path, _ in files)
        union = "" if name in _ALIKE else ", union_by_name = true"
        read = f"read_parquet([{paths}], filename = true{union})"
        found = f"SELECT *, {_id_of(root, name)} AS object_id"
        view += f" UNION ALL BY NAME {found} FROM {read}"
    connection.execute(f"CREATE VIEW parquet.{name} AS {view}")


def _id_of(root: Path, name: str) -> str:
    """Return the expression for an object's id in `filename`: quick, as it is there in each row."""
    kinds, _ = PARQUET[name]
    if len(kinds) > 1:
        return "string_split(filename, '/')[-2]"
    return f"substring(filename, {len(str(root / 'objects' / kinds[0])) + 2}, {_DIGITS})"


def files_behind(connection: DuckDBPyConnection, name: str) -> list[tuple[str, str]]:
    """The files of a view, from the store's `objects/`, in its order, with their SHA-256."""
    kinds, file = PARQUET[name]
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


def needed(sql: str) -> list[str]:
    """The views that a query names, and those behind them, in an order that can be made.

    A word in a comment or a column of the same name only makes a view too many. A query that
    names none (SHOW TABLES) gets all.
    """
    return with_sources(mentioned(sql) or all_names())


def with_sources(names: Iterable[str]) -> list[str]:
    """Return views and those behind them, in an order that they can be made in."""
    ordered: list[str] = []
    for name in sorted(names):
        _add_with_sources(name, ordered)
    return ordered


def _add_with_sources(name: str, ordered: list[str]) -> None:
    if name in ordered:
        return
    if name not in PARQUET:
        read = re.findall(r"\b(?:FROM|JOIN)\s+(?:parquet\.)?(\w+)", _definition(name))
        for source in sorted(set(read) & set(all_names())):
            _add_with_sources(source, ordered)
    ordered.append(name)


def mentioned(sql: str) -> set[str]:
    """Return the views of which a statement has the word, as what it may be."""
    return set(re.findall(r"\w+", sql.lower())) & set(all_names())


@cache
def all_names() -> tuple[str, ...]:
    """Return the name of every view and macro."""
    files = sorted(_FOLDER.glob("*.sql"))
    return (*PARQUET, *(file.stem for file in files if file.stem != "parquet"))


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
