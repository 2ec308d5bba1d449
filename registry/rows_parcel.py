"""A dataset version as Parquet for the Hub, and back: the same rows, the same id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.chunks import Usable, table_of
from registry.collect import Collector
from registry.contents import ContentWriter
from registry.datasets import DatasetSpec
from registry.erased import erased_rows
from registry.errors import UserError
from registry.read import VersionReader
from registry.rows import HELD, SPLITS
from registry.rows_incoming import parcel_schema, read_rows
from registry.splits import CODED, Assignment
from registry.spool import Spool
from registry.versions import write_version

if TYPE_CHECKING:
    from pathlib import Path

    from registry.catalog import Catalog
    from registry.store import ObjectRef, Store

_BATCH = 1_000


def write_rows(store: Store, version: ObjectRef, folder: Path) -> dict[str, Path]:
    """Write a version's rows as `data/<split>.parquet` into `folder`; returns path -> file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader, schema = VersionReader(store, version.id), parcel_schema()
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


def take_rows(
    store: Store, catalog: Catalog, folder: Path, *, name: str, license_: str | None, where: str
) -> tuple[ObjectRef, ...]:
    """Put the rows of `data/*.parquet` into the store as a version; the caller commits it.

    Args:
        store: where to.
        catalog: what is there already.
        folder: with `data/`.
        name: what the dataset is called here.
        license_: of its rows.
        where: what the files are recorded as, such as owner/name@commit.

    Returns:
        Every object to commit, the version last.

    Raises:
        UserError: a row that isn't what it says, or a file that is no such Parquet.
    """
    from registry.kinds import ErasureMeta, RowsMeta

    rows = read_rows(folder, where)
    there = catalog.committed_of(RowsMeta, ErasureMeta)
    erased = erased_rows(store, there[ErasureMeta.of_kind])
    if gone := sum(erased.among(str(line["row_hash"]) for line, _ in rows)):
        raise UserError(f"{gone} of its rows were erased from this store on purpose", where)
    with (
        store.draft() as scratch,
        Spool(scratch / "beside.arrow", ("meta", "text")) as spool,
        ContentWriter(store, catalog, there["rows"]) as writer,
    ):
        collector = Collector(writer, spool)
        files: dict[tuple[str, str], int] = {}
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            table = table_of([Usable(c, str(line["row_hash"]), line["meta"]) for line, c in some])
            at = [(str(line["source_file"]), str(line["split"])) for line, _ in some]
            numbers = np.array([files.setdefault(one, len(files)) for one in at], np.int32)
            collector.add(table, numbers, [line["source_line"] for line, _ in some])
        collector.reject((), len(rows))
        writer.put()
        found = collector.collected(list(files))
        assignment = Assignment(
            np.array([CODED.index(line["split"]) for line, _ in rows], np.uint8),
            np.array([line["cluster"] for line, _ in rows], np.int64),
            (),
        )
        spec = DatasetSpec(path=where, license=license_)
        metas = spool.read()["meta"]
        made = write_version(store, name, spec, found, metas, assignment, writer.known)
    return made.objects
