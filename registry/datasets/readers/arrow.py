"""Arrow's own files (.arrow, .feather): the file format and the stream, as `datasets` writes it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from registry.datasets.readers.arrow_sizes import unpacked_size
from registry.datasets.readers.features import decoder_of
from registry.datasets.readers.parquet import BATCH, batch_rows, refuse_bomb
from registry.datasets.readers.reading import AS_FOUND, INVALID_UTF8, Reading
from registry.datasets.readers.record import Record
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from registry.datasets.readers.features import Decoder

_MAGIC = b"ARROW1"
_STREAM_AT = 8  # where the stream begins inside a file of the file format
_FEATHER_1 = b"FEA1"


def read_arrow(path: Path, reading: Reading = AS_FOUND) -> Iterator[Record]:
    """Yield the rows of an Arrow file or stream.

    Raises:
        UserError: it is none, is damaged, or unpacks to far more than its size.
    """
    import pyarrow as pa

    with _opened(path) as opened:
        done = 0
        try:
            decoder = decoder_of(opened.schema, reading.encoding)
            for batch in _batches(opened):
                yield from _rows(done + 1, batch, decoder)
                done += batch.num_rows
        except (pa.ArrowException, UnicodeDecodeError) as error:  # names are texts too
            where = f"{path}: row {done + 1} or later"
            raise DataError(f"a damaged Arrow file: {error}", where=where) from error


def arrow_schema(path: Path) -> pa.Schema:
    """Return the schema of an Arrow file or stream.

    Raises:
        UserError: as `read_arrow`.
    """
    with _opened(path) as reader:
        try:
            _ = reader.schema.names
        except UnicodeDecodeError as error:
            raise DataError("a column's name is no UTF-8", where=str(path)) from error
        return reader.schema


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    is_file = _looked_at(path)
    with pa.OSFile(str(path)) as source:
        try:
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"not an Arrow file: {error}", where=str(path)) from error
        with reader:
            yield reader


def _looked_at(path: Path) -> bool:
    """Return whether it is the file format; refuse what Arrow can't or shouldn't unpack."""
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
        if magic.startswith(_FEATHER_1):
            raise DataError(
                "Feather of version 1, which no current library reads",
                where=str(path),
                fix="write it again as Parquet, or as Feather of version 2",
            )
        file.seek(_STREAM_AT if magic == _MAGIC else 0)
        try:
            found = unpacked_size(file)
        except ValueError as error:
            raise DataError(f"not an Arrow file: {error}", where=str(path)) from error
    refuse_bomb(path, found.size, found.rows)
    return magic == _MAGIC


def _batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        yield from reader


def _rows(first: int, batch: Any, decoder: Decoder | None) -> Iterator[Record]:
    """Yield a batch's rows; Arrow reads what offsets say unless they are checked first."""
    import pyarrow as pa

    batch.validate()  # sizes and ends: cheap, and enough to make slices of it
    for start in range(0, batch.num_rows, BATCH):
        piece = batch.slice(start, BATCH)
        try:
            piece.validate(full=True)
        except pa.ArrowInvalid:
            for number in range(piece.num_rows):
                yield _checked_row(first + start + number, piece.slice(number, 1), decoder)
        else:
            yield from batch_rows(first + start, piece, decoder)


def _checked_row(number: int, row: Any, decoder: Decoder | None) -> Record:
    import pyarrow as pa

    try:
        row.validate(full=True)
    except pa.ArrowInvalid as error:
        text = str(error)
        return Record(number, None, INVALID_UTF8 if "UTF8" in text else f"damaged: {text}")
    return next(batch_rows(number, row, decoder))
