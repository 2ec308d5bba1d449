"""The Parquet files of dataset versions, asked with DuckDB: nothing is read that nobody asks for.

A version may have ten million rows. They stay in its files; what is sorted or joined and doesn't
fit the memory given goes to the store's folder for temporary files.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.diskfull import one_line_when_full
from registry.errors import damaged
from registry.filenames import REJECTS, ROWS
from registry.refs import refs_names
from registry.statement import literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from registry.store import Store

_MEMORY = "1GB"  # and what Arrow and Python hold of one batch
_TYPED = {"refs": "stored_refs", "rows": "stored_rows", "rejects": "stored_rejects"}
_ROW = """
SELECT refs.row_uid, refs.row_hash, content.kind, refs.split, refs.source_file, refs.source_line,
       content.messages, content.chosen, content.rejected, content.label, content.tools,
       refs.tags, refs.meta, refs.position
FROM {name}_rows AS content
JOIN (FROM {name}_refs WHERE position IN {positions}) AS refs USING (row_uid)
ORDER BY refs.position
"""


@dataclass(frozen=True)
class VersionFiles:
    """Where a version's rows are: `refs` one line a row, `rows` their content, `rejects` if any."""

    refs: tuple[Path, ...]
    rows: tuple[Path, ...]
    rejects: Path | None


def version_files(store: Store, version_id: str) -> VersionFiles:
    """Return the Parquet files of a version.

    Raises:
        StoreError: the version, or content that it names, is not in the store.
    """
    version = store.get("dataset_version", version_id)
    manifest = store.manifest(version)
    rows = [store.get("rows", one["id"]) for one in manifest["parents"] if one["role"] == "rows"]
    has_rejects = REJECTS in manifest["files"]
    return VersionFiles(
        tuple(version.path / name for name in refs_names(manifest["files"])),
        tuple(ref.path / ROWS for ref in rows),
        version.path / REJECTS if has_rejects else None,
    )


@contextmanager
def asking(store: Store, **named: VersionFiles) -> Iterator[DuckDBPyConnection]:
    """Give a DuckDB with the views NAME_refs (with `position`), NAME_rows and NAME_rejects.

    Raises:
        StoreError: a file that can't be read.
        UserError: the disk is too full for what doesn't fit the memory.
    """
    import duckdb

    from registry.attach import connect

    spill = store.scratch_path()
    connection = connect()
    try:
        # A join builds its table of what is on its right, as it is written: never of content.
        connection.execute(
            f"SET temp_directory = {literal(spill)}; SET memory_limit = '{_MEMORY}';"
            " SET disabled_optimizers = 'join_order,build_side_probe_side'"
        )
        with one_line_when_full(store.root):
            for name, files in named.items():
                _make_views(connection, name, files)
            yield connection
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        if ".parquet" not in str(error):
            raise
        raise damaged(store.objects, error) from None
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def rows_at(
    connection: DuckDBPyConnection, name: str, positions: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the rows at these positions of the version whose views are called NAME_….

    Each has the columns of the view `rows`, as far as they are about the row, and its `position`.
    """
    if not positions:
        return []
    return records(connection, _ROW.format(name=name, positions=literal(tuple(positions))))


def records(connection: DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """Return a small answer as one dict a row."""
    cursor = connection.execute(sql)
    columns = [column[0] for column in cursor.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _make_views(connection: DuckDBPyConnection, name: str, files: VersionFiles) -> None:
    begin, parts = 0, []
    for path in files.refs:
        parts.append(([path], f", file_row_number + {begin} AS position"))
        begin += _rows_in(path)
    _make(connection, f"{name}_refs", "refs", parts)
    _make(connection, f"{name}_rows", "rows", [(files.rows, "")] if files.rows else [])
    rejects = [] if files.rejects is None else [([files.rejects], "")]
    _make(connection, f"{name}_rejects", "rejects", rejects)


def _rows_in(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def _make(
    connection: DuckDBPyConnection,
    view: str,
    kind: str,
    parts: Sequence[tuple[Sequence[Path], str]],
) -> None:
    """Make a view of files, each part with a column more; it has all its columns without any."""
    from registry.views import stored_columns

    typed = ", ".join(f'NULL::{form} AS "{name}"' for name, form in stored_columns(_TYPED[kind]))
    body = f"SELECT {typed} WHERE false"
    for paths, more in parts:
        listed = ", ".join(map(literal, paths))
        options = "union_by_name = true, file_row_number = true"
        found = f"SELECT * EXCLUDE (file_row_number){more} FROM"
        body += f" UNION ALL BY NAME {found} read_parquet([{listed}], {options})"
    connection.execute(f"CREATE VIEW {view} AS {body}")
