"""Sets of row uids as chunked bitmaps: small in Parquet, and asked in plain SQL.

A chunk covers 65,536 uids and is always 8,192 bytes; zstd makes the empty stretches vanish. Bit
uid % 65,536 counts from the highest bit of the first byte, as DuckDB's BIT type does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHUNK_UIDS = 65_536
CHUNK_BYTES = CHUNK_UIDS // 8
_GROUP = 12  # chunks to a row group of the file


@dataclass(frozen=True, slots=True)
class BitmapChunk:
    """Which of the uids `chunk * 65,536 …` are in the set: 8,192 bytes."""

    chunk: int
    bitmap: bytes


def pack(uids: Iterable[int]) -> list[BitmapChunk]:
    """Make the bitmaps of a set of uids, in the order of chunks; repeats count once.

    Raises:
        ValueError: for a negative uid.
    """
    import numpy as np

    ordered = np.sort(np.fromiter(uids, np.int64))
    if len(ordered) and ordered[0] < 0:
        message = f"a row uid cannot be negative: {ordered[0]}"
        raise ValueError(message)
    made = []
    for inside in np.split(ordered, np.flatnonzero(np.diff(ordered // CHUNK_UIDS)) + 1):
        if len(inside):  # the one part of no uids at all is empty
            flags = np.zeros(CHUNK_UIDS, np.bool_)
            flags[inside % CHUNK_UIDS] = True
            made.append(BitmapChunk(int(inside[0]) // CHUNK_UIDS, np.packbits(flags).tobytes()))
    return made


def unpack(chunks: Iterable[BitmapChunk]) -> Iterator[int]:
    """Give back the uids of bitmaps, ascending within each chunk."""
    for chunk in chunks:
        for position, byte in enumerate(chunk.bitmap):
            for bit in range(8):
                if byte & (0x80 >> bit):
                    yield chunk.chunk * CHUNK_UIDS + position * 8 + bit


def write_bitmaps(uids: Iterable[int], path: Path) -> None:
    """Write a selection's `bitmaps.parquet` (columns as in views/parquet.sql)."""
    import pyarrow as pa
    from pyarrow import parquet

    chunks = pack(uids)
    table = pa.table(
        {
            "chunk": pa.array([chunk.chunk for chunk in chunks], pa.int64()),
            "bitmap": pa.array([chunk.bitmap for chunk in chunks], pa.binary()),
        }
    )
    # Small groups: a question about one row reads the group of its chunk and skips the others. At
    # 1,000 selections opening files is most of its time, and smaller groups have longer footers.
    parquet.write_table(
        table,
        path,
        compression={"chunk": "none", "bitmap": "zstd"},
        row_group_size=_GROUP,
        use_dictionary=False,
        write_statistics=["chunk"],
        store_schema=False,
    )
