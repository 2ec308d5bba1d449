"""Rows that were erased on purpose don't come in again, whatever file they stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.collect import Collector

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from registry.arrays import Int32Array, Int64Array
    from registry.contents import ContentWriter
    from registry.erased import ErasedRows
    from registry.spool import Spool


class WithholdingCollector(Collector):
    """A collector that passes over erased rows and counts how often it met one."""

    def __init__(self, erased: ErasedRows, writer: ContentWriter, spool: Spool) -> None:
        """Remember which rows were erased; the rest is as in `Collector`."""
        super().__init__(writer, spool)
        self._erased = erased
        self.withheld = 0

    def add(
        self, table: pa.Table, files: int | Int32Array, lines: Sequence[int] | Int64Array
    ) -> None:
        """Take rows as `Collector.add` does, but for those that were erased."""
        if self._erased:
            kept = ~np.array(self._erased.among(table["row_hash"].to_pylist()), bool)
            if not kept.all():
                self.withheld += int(np.count_nonzero(~kept))
                table, lines = table.filter(kept), np.asarray(lines, np.int64)[kept]
                files = files if isinstance(files, int) else files[kept]
        super().add(table, files, lines)
