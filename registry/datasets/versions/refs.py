"""The files of a version that say where its rows stand: `refs.parquet`, and more after an append.

A version that was made by appending files shares the older files with the version before
(`Store.draft` folders link to them) and has its own rows in `refs-2.parquet` and so on. Together,
one behind the other, they are the version's rows in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import damaged
from registry.store.filenames import REFS, REFS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from registry.datasets.formats.arrays import Int64Array
    from registry.store.objects import ObjectRef, Store

GROUP = 100_000  # rows written and read at a time


def refs_name(number: int) -> str:
    """Return the name of the file of this number, from 0."""
    return REFS if number == 0 else f"refs-{number + 1}.parquet"


def refs_names(files: Iterable[str]) -> list[str]:
    """Return those of a version's files that have its rows, in the order of the rows."""
    found = [name for name in files if REFS_FILE.fullmatch(name)]
    return sorted(found, key=lambda name: (len(name), name))


def refs_paths(store: Store, version: ObjectRef) -> list[Path]:
    """Return the files that say where a version's rows stand, in the order of the rows."""
    return [version.path / name for name in refs_names(store.manifest(version)["files"])]


def places_of(store: Store, version_id: str, dataset: str) -> ObjectRef | None:
    """Return where a dataset has the rows of a version, where the version doesn't say so itself.

    Raises:
        StoreError: an object of this kind that can't be read.
    """
    from registry.store.kinds import PlacesMeta
    from registry.store.manifest import manifest_in

    home = store.objects / PlacesMeta.of_kind
    found = []
    for folder in home.iterdir() if home.is_dir() else ():
        manifest = manifest_in(folder, PlacesMeta)
        if (manifest.decided_by("version"), manifest.meta.name) == (version_id, dataset):
            found.append((manifest.meta.created_at, manifest.id))
    return store.get(PlacesMeta.of_kind, max(found)[1]) if found else None


def read_refs(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of a version's files.

    Raises:
        StoreError: a file that can't be read.
    """
    import pyarrow as pa

    from registry.datasets.versions.row import refs_schema

    none = refs_schema().empty_table()
    none = none if columns is None else none.select(columns)
    return pa.concat_tables([none, *refs_batches(paths, columns)])


def refs_batches(paths: Sequence[Path], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a version's files, some at a time.

    Raises:
        StoreError: a file that can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            # ParquetFile and not read_table, which takes `kind/id` folders for partitions.
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(GROUP, columns=columns):
                    yield pa.table(batch)
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error


def refs_at(paths: Sequence[Path], places: Int64Array, columns: Sequence[str]) -> pa.Table:
    """Return the rows at these places of a version, ascending; only their row groups are read.

    Raises:
        StoreError: a file that can't be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    found, begin = [], 0
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                found.append(file.schema_arrow.empty_table().select(columns))
                for number in range(file.num_row_groups):
                    end = begin + file.metadata.row_group(number).num_rows
                    first, last = np.searchsorted(places, [begin, end])
                    if first < last:
                        group = file.read_row_group(number, list(columns))
                        found.append(group.take(pa.array(places[first:last] - begin)))
                    begin = end
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
    return pa.concat_tables(found)
