"""A dataset version as Parquet for the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from registry.datasets.formats.content import HELD, SPLITS, content_schema
from registry.datasets.versions.read import VersionReader

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from registry.store.objects import ObjectRef, Store

PLACES = ("position", "split", "cluster", "meta", "source_file", "source_line")
NUMBERS = ("position", "cluster", "source_line")


def write_rows(store: Store, version: ObjectRef, name: str, folder: Path) -> dict[str, Path]:
    """Write a version's rows as `data/<split>.parquet` into `folder`; returns path -> file.

    Rows stand where the dataset `name` has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader, schema = VersionReader(store, version.id, name), parcel_schema()
    there = reader.counts()
    written = {}
    (folder / "data").mkdir()
    for split in (*SPLITS, HELD):
        if split not in there:
            continue
        path = folder / "data" / f"{split}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as file:
            for lines in reader.lines({split}):
                file.write_table(pa.Table.from_pylist(lines, schema))
        written[f"data/{split}.parquet"] = path
    return written


def parcel_schema() -> pa.Schema:
    """Return the columns of `data/<split>.parquet`: a row's content, and its place in a version."""
    import pyarrow as pa

    content = [field for field in content_schema() if field.name != "row_uid"]
    places = [pa.field(n, pa.int64() if n in NUMBERS else pa.string()) for n in PLACES]
    return pa.schema([*content, *places])
