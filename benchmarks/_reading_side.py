"""One side of the reading benchmark, in a process of its own; prints what it took as JSON.

    python benchmarks/_reading_side.py FILE FORMAT

CPU seconds are of reading alone: the first rows are read before, with all that this imports.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import pyarrow as pa

try:
    from registry.datasets.formats.format import SHAPES, Format
    from registry.datasets.sources.chunks import read_chunks
    from registry.datasets.sources.resolve import SourceFile
except ModuleNotFoundError:  # a checkout from before the rooms, beside which this is measured
    from registry.chunks import read_chunks  # type: ignore[import-not-found,no-redef]
    from registry.formats import SHAPES, Format  # type: ignore[import-not-found,no-redef]
    from registry.sources import SourceFile  # type: ignore[import-not-found,no-redef]


def main() -> None:
    """Read a file to hashed rows."""
    file, form = SourceFile(Path(sys.argv[1]), "d", "train"), Format(SHAPES[sys.argv[2]])
    next(read_chunks(file, form, None))
    rows = 0
    hashes: list[pa.Array] = []
    began = time.process_time()
    for chunk in read_chunks(file, form, None):
        rows += len(chunk.table)
        hashes += chunk.table["row_hash"].chunks
    took = time.process_time() - began
    said = "".join(pa.chunked_array(hashes).to_pylist())
    digest = hashlib.sha256(said.encode()).hexdigest()
    print(json.dumps({"rows": rows, "cpu": took, "hashes": digest}))


if __name__ == "__main__":
    main()
