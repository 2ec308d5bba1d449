"""The digest of a version's rows, in their order: a part of the version's id.

A row is a line of JSON, [hash, split, [], meta]. Up to 65,536 rows are one block, whose SHA-256 is
the digest. More rows are several blocks, and the digest is that of their digests, a line each: so
what was appended is digested without what was there before.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

BLOCK = 1 << 16
_AT_ONCE = 2_048  # rows: their lines are one array, of at most 2 GiB; a part of a block
COLUMNS = ("row_hash", "split", "meta")


class RowsDigest:
    """Takes rows by column; `blocks` are the digests of those that are full."""

    def __init__(self, blocks: Sequence[str] = ()) -> None:
        """Begin behind these blocks."""
        self.blocks = list(blocks)
        self._open = hashlib.sha256()
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Take rows of a table that has the columns, and may have more."""
        begin = 0
        while begin < len(table):
            some = table.slice(begin, min(_AT_ONCE - self._rows % _AT_ONCE, len(table) - begin))
            self._open.update(_lines(some))
            self._rows += len(some)
            begin += len(some)
            if self._rows == BLOCK:
                self.blocks.append(self._open.hexdigest())
                self._open, self._rows = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """Return the digest of all rows until now."""
        blocks = [*self.blocks, *([self._open.hexdigest()] if self._rows else [])]
        if len(blocks) == 1:
            return blocks[0]
        return hashlib.sha256("".join(f"{one}\n" for one in blocks).encode()).hexdigest()


def _lines(rows: pa.Table) -> memoryview:
    """Return the lines of rows, as bytes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    hashes, splits, metas = (rows[name].combine_chunks() for name in COLUMNS)
    beside = metas.dictionary_encode()
    said = [json.dumps(meta, ensure_ascii=False) for meta in beside.dictionary.to_pylist()]
    quoted = pa.array(said, pa.string()).take(beside.indices)
    lines = pc.binary_join_element_wise('["', hashes, '","', splits, '",[],', quoted, "]\n", "")
    _, ends, letters = lines.buffers()
    return memoryview(letters)[: np.frombuffer(ends, np.int32)[len(lines)]]
