"""Parquet files, and rows of Arrow batches as records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.datasets.readers.features import UndecodedError, decoder_of
from registry.datasets.readers.reading import AS_FOUND, INVALID_UTF8, Reading
from registry.datasets.readers.record import Record
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from registry.datasets.readers.features import Decoder

BATCH = 512  # rows; a value that is repeated is unpacked as often
_FEWEST = 4  # rows: with fewer a file of short ones takes long
_AT_ONCE = 1 << 28  # bytes of one column
_BOMB_FROM = 1 << 26  # bytes unpacked, or rows, below which a file is let be
_BOMB_RATIO = 1_000  # of bytes unpacked
_BOMB_ROWS = 100  # a byte


def read_parquet(path: Path, reading: Reading = AS_FOUND) -> Iterator[Record]:
    """Yield the rows of a Parquet file.

    Raises:
        UserError: it is none, is damaged, or unpacks to far more than its size.
    """
    import pyarrow as pa

    with _parquet(path) as file:
        done = 0
        try:
            decoder = decoder_of(file.schema_arrow, reading.encoding)
            for batch in _batches(path, file):
                yield from batch_rows(done + 1, batch, decoder)
                done += batch.num_rows
        except (pa.ArrowException, UnicodeDecodeError) as error:  # names are texts too
            where = f"{path}: row {done + 1} or later"
            raise DataError(f"a damaged Parquet file: {error}", where=where) from error


def _batches(path: Path, file: Any) -> Iterator[Any]:
    """Yield the rows of a Parquet file, as many at a time as take little memory in the worst case.

    A value that is repeated is stored once, and what a file says of its size counts it once.

    Raises:
        UserError: it unpacks to far more than its size.
    """
    unpacked = rows = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        columns = (group.column(one).total_uncompressed_size for one in range(group.num_columns))
        fitting = _AT_ONCE // max(*columns, 1, 1)  # each row may be the longest
        size = min(BATCH, max(_FEWEST, fitting))
        for batch in file.iter_batches(batch_size=size, row_groups=[number]):
            unpacked += batch.nbytes
            rows += batch.num_rows
            refuse_bomb(path, unpacked, rows)
            yield batch


def parquet_schema(path: Path) -> pa.Schema:
    """Return the schema of a Parquet file.

    Raises:
        UserError: as `read_parquet`.
    """
    with _parquet(path) as file:
        try:
            _ = file.schema_arrow.names
        except UnicodeDecodeError as error:
            raise DataError("a column's name is no UTF-8", where=str(path)) from error
        return file.schema_arrow


def refuse_bomb(path: Path, unpacked: int, rows: int) -> None:
    """Refuse a small file that unpacks to more than any text of its size does.

    A repeated value takes a few bits a row, so rows count too, and not the unpacked bytes alone.

    Raises:
        UserError: it does.
    """
    size = path.stat().st_size
    if max(unpacked, rows) > _BOMB_FROM and (
        unpacked > _BOMB_RATIO * size or rows > _BOMB_ROWS * size
    ):
        raise DataError(
            f"{size} bytes that unpack to {unpacked} in {rows} rows",
            where=str(path),
            expected=f"at most {_BOMB_RATIO} times the bytes, and {_BOMB_ROWS} rows a byte",
            fix="write it with less compression if it is what it seems",
        )


def batch_rows(first: int, batch: Any, decoder: Decoder | None) -> Iterator[Record]:
    """Yield the rows of an Arrow batch, the first one numbered `first`."""
    try:
        values = _rows(batch)
    except UnicodeDecodeError:
        rows = ((first + i, batch.slice(i, 1)) for i in range(batch.num_rows))
        yield from (_batch_row(number, row, decoder) for number, row in rows)
        return
    yield from (_decoded(first + i, value, decoder) for i, value in enumerate(values))


def _rows(batch: Any) -> list[dict[str, Any]]:
    """Return rows without the nulls that Arrow fills in.

    All objects of a column have the same keys there: one that a row never had is a null.
    """
    rows: list[dict[str, Any]] = batch.to_pylist()
    nested = [field.name for field in batch.schema if _holds_objects(field.type)]
    for row in rows if nested else ():
        row.update({name: _as_given(row[name]) for name in nested})
    return rows


def _holds_objects(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return True
    return types.is_nested(kind) and any(
        _holds_objects(kind.field(place).type) for place in range(kind.num_fields)
    )


def _as_given(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_given(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_as_given(inner) for inner in value]
    return value


def _batch_row(number: int, batch: Any, decoder: Decoder | None) -> Record:
    try:
        return _decoded(number, _rows(batch)[0], decoder)
    except UnicodeDecodeError:
        return Record(number, None, INVALID_UTF8)


def _decoded(number: int, value: dict[str, Any], decoder: Decoder | None) -> Record:
    if decoder is None:
        return Record(number, value)
    try:
        return Record(number, decoder.decode(value))
    except UndecodedError as error:
        return Record(number, None, str(error))


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"not a Parquet file: {error}", where=str(path)) from error
    metadata = file.metadata
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    refuse_bomb(path, sum(group.total_byte_size for group in groups), metadata.num_rows)
    return file
