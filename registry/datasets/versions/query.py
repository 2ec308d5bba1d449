"""The Parquet files of dataset versions, asked with DuckDB: nothing is read that nobody asks for.

A version may have ten million rows. They stay in its files; what is sorted or joined and doesn't
fit the memory given goes to the store's folder for temporary files. Who wants rows asks `read`,
which stands on this; what is compared or counted over whole versions is asked here in SQL.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.catalog.sql import fill, literal
from registry.datasets.versions.refs import places_of, refs_names
from registry.errors import damaged
from registry.store.disk import one_line_when_full
from registry.store.filenames import PLACES, REJECTS, ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq
    from duckdb import DuckDBPyConnection

    from registry.store.objects import Store

_MEMORY = "1GB"  # and what Arrow and Python hold of one batch
_TYPED = {"refs": "stored_refs", "rows": "stored_rows", "rejects": "stored_rejects"}
OTHERWISE = ("source", "source_file", "source_line", "sources")
"""What another dataset may say otherwise of a version's rows."""
_CHUNK = 200_000  # rows: at most so many are looked for in one reading of the content,
_CHUNK_BYTES = 256 << 20  # or as many as have this size
_FEW = 10_000  # rows: so few are looked for by each uid, more by the first and last
WHOLE = "kind, messages, chosen, rejected, label, tools"
"""The columns of content, but for those that refs have too."""

_ROW = """
SELECT row_uid, row_hash, split, source_file, source_line, tags, meta, position
FROM {name}_refs WHERE position IN {positions} ORDER BY position
"""
# Row groups in which no row is wanted are passed over, by the bounds of their uids.
_CONTENT = """
SELECT chunk.*, {columns}
FROM (FROM {name}_rows WHERE row_uid BETWEEN ? AND ?) AS content JOIN chunk USING (row_uid)
ORDER BY chunk.place
"""


@dataclass(frozen=True)
class VersionFiles:
    """Where a version's rows are: `refs` one line a row, `rows` their content, `rejects` if any.

    `places` says otherwise than `refs` where the rows stand: as another dataset has them.
    """

    refs: tuple[Path, ...]
    rows: tuple[Path, ...]
    rejects: Path | None
    places: Path | None = None

    def chunk_rows(self) -> int:
        """Return how many rows have about as much content as may be in memory.

        Raises:
            StoreError: a file that can't be read.
        """
        size = rows = 0
        for path in self.rows:
            found = _metadata(path)
            rows += found.num_rows
            size += sum(found.row_group(n).total_byte_size for n in range(found.num_row_groups))
        return max(1, min(_CHUNK, _CHUNK_BYTES * rows // max(size, 1)))

    def content_rows(self) -> int:
        """Return how many rows have their content in these files, of whatever version.

        Raises:
            StoreError: a file that can't be read.
        """
        return sum(_metadata(path).num_rows for path in self.rows)


def version_files(store: Store, version_id: str, dataset: str | None = None) -> VersionFiles:
    """Return the Parquet files of a version.

    Args:
        store: where it is.
        version_id: its full id.
        dataset: the name of the dataset that it is read as; by default, of the first that had it.

    Raises:
        StoreError: the version, or content that it names, is not in the store.
    """
    version = store.get("dataset_version", version_id)
    manifest = store.manifest(version)
    rows = [store.get("rows", one["id"]) for one in manifest["parents"] if one["role"] == "rows"]
    places = None if dataset is None else places_of(store, version_id, dataset)
    said_by = version if places is None else places
    return VersionFiles(
        tuple(version.path / name for name in refs_names(manifest["files"])),
        tuple(ref.path / ROWS for ref in rows),
        said_by.path / REJECTS if (said_by.path / REJECTS).is_file() else None,
        None if places is None else places.path / PLACES,
    )


@contextmanager
def open_connection(store: Store, **named: VersionFiles) -> Iterator[DuckDBPyConnection]:
    """Give a DuckDB with the views NAME_refs (with `position`), NAME_rows and NAME_rejects.

    Raises:
        StoreError: a file that can't be read.
        UserError: the disk is too full for what doesn't fit the memory.
    """
    import duckdb

    from registry.catalog.database import connect

    spill = store.spill_path()
    connection = connect()
    try:
        # A join builds its table of what is on its right, as it is written: never of content.
        connection.execute(
            f"SET temp_directory = {literal(spill)}; SET memory_limit = '{_MEMORY}';"
            " SET disabled_optimizers = 'join_order,build_side_probe_side';"
            f" SET dynamic_or_filter_threshold = {_FEW}"
        )
        with one_line_when_full(store.root):
            for name, files in named.items():
                _make_views(connection, name, files)
            yield connection
    except duckdb.Error as error:
        told = isinstance(error, (duckdb.IOException, duckdb.InvalidInputException))
        # What is of no kind comes out of a page whose bytes make no sense.
        if type(error) is duckdb.Error or (told and ".parquet" in str(error)):
            raise damaged(store.objects, error) from None
        raise
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
    refs = _ROW.format(name=name, positions=literal(tuple(positions)))
    found = joined(connection, refs, WHOLE, len(positions), name=name)
    return [line for batch in found for line in batch.to_pylist()]


def joined(
    connection: DuckDBPyConnection,
    refs: str,
    columns: str,
    most: int,
    *,
    chunk: int = _CHUNK,
    name: str = "v",
    only: Collection[int] | None = None,
    count: Callable[[int], None] = lambda _: None,
) -> Iterator[pa.RecordBatch]:
    """Yield rows with their content, in the order of `refs`; a row without content is left out.

    Content is looked for by its uids, many rows at once: mostly they follow each other in the
    files, and then no part of a file is read twice.

    Args:
        connection: of `open_connection`.
        refs: a query whose rows have a `row_uid`.
        columns: of the content, or expressions over them; they come behind those of `refs`.
        most: rows in a batch.
        chunk: rows of `refs` that are looked for at a time; `VersionFiles.chunk_rows` of them.
        name: what the version's views begin with.
        only: uids that `refs` has as the table `chosen`.
        count: told how many rows of `refs` are looked for.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = connection.cursor()
    if only is not None:
        asked.register("chosen", pa.table({"row_uid": pa.array(sorted(only), pa.int64())}))
    for some in asked.execute(refs).to_arrow_reader(chunk):
        if not len(some):
            continue
        count(len(some))
        uids = pc.min_max(some["row_uid"]).as_py()
        numbered = pa.table(some).append_column("place", pa.array(range(len(some))))
        connection.register("chunk", numbered)
        sql = _CONTENT.format(name=name, columns=columns)
        found = connection.execute(fill(sql, [uids["min"], uids["max"]]))
        for batch in found.to_arrow_reader(most):
            yield batch.drop_columns(["place"])
        connection.unregister("chunk")


def records(connection: DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """Return a small answer as one dict a row."""
    cursor = connection.execute(sql)
    columns = [column[0] for column in cursor.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _make_views(connection: DuckDBPyConnection, name: str, files: VersionFiles) -> None:
    begin, parts = 0, []
    for path in files.refs:
        parts.append(([path], f", file_row_number + {begin} AS position"))
        begin += _metadata(path).num_rows
    stored = f"{name}_refs" if files.places is None else f"{name}_stored"
    _make(connection, stored, "refs", parts)
    if files.places is not None:
        other = ", ".join(f"place.{column} AS {column}" for column in OTHERWISE)
        connection.execute(
            f"CREATE VIEW {name}_refs AS SELECT refs.* REPLACE ({other})"  # noqa: S608 - our words
            f" FROM {stored} AS refs"
            f" JOIN read_parquet({literal(files.places)}) AS place USING (row_uid)"
            " ORDER BY position"
        )
    _make(connection, f"{name}_rows", "rows", [(files.rows, "")] if files.rows else [])
    rejects = [] if files.rejects is None else [([files.rejects], "")]
    _make(connection, f"{name}_rejects", "rejects", rejects)


def _metadata(path: Path) -> pq.FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return file.metadata
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def _make(
    connection: DuckDBPyConnection,
    view: str,
    kind: str,
    parts: Sequence[tuple[Sequence[Path], str]],
) -> None:
    """Make a view of files, each part with a column more; it has all its columns without any."""
    from registry.catalog.views import stored_columns

    typed = ", ".join(f'NULL::{form} AS "{name}"' for name, form in stored_columns(_TYPED[kind]))
    body = f"SELECT {typed} WHERE false"
    for paths, more in parts:
        listed = ", ".join(map(literal, paths))
        options = "union_by_name = true, file_row_number = true"
        found = f"SELECT * EXCLUDE (file_row_number){more} FROM"
        body += f" UNION ALL BY NAME {found} read_parquet([{listed}], {options})"
    connection.execute(f"CREATE VIEW {view} AS {body}")
