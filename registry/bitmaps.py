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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Which of the uids `chunk * 65,536 …` are in the set: 8,192 bytes."""

    chunk: int
    bitmap: bytes


def pack(uids: Iterable[int]) -> list[Chunk]:
    """Make the bitmaps of a set of uids, in the order of chunks; repeats count once.

    Raises:
        ValueError: for a negative uid.
    """
    chunks: dict[int, bytearray] = {}
    for uid in uids:
        if uid < 0:
            message = f"a row uid cannot be negative: {uid}"
            raise ValueError(message)
        chunk, bit = divmod(uid, CHUNK_UIDS)
        bits = chunks.setdefault(chunk, bytearray(CHUNK_BYTES))
        bits[bit // 8] |= 0x80 >> (bit % 8)
    return [Chunk(chunk, bytes(chunks[chunk])) for chunk in sorted(chunks)]


def unpack(chunks: Iterable[Chunk]) -> Iterator[int]:
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
    # Small groups: a question about one row reads the group of its chunk and skips the others.
    parquet.write_table(table, path, compression="zstd", row_group_size=16)
