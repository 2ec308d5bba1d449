"""Texts of many rows on the disk: written batch by batch, read back by place."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, overload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    import pyarrow as pa

_RESTED = 1_000  # texts that are read one by one before their pages, some dozens each, are let go


class Spool:
    """Columns of texts in one file, memory-mapped to be read."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Write to `path`; `columns` are their names."""
        import pyarrow as pa

        self._schema = pa.schema([(name, pa.string()) for name in columns])
        self._stack = ExitStack()
        self._file = self._stack.enter_context(pa.OSFile(str(path), "wb"))
        self._writer: Any = self._stack.enter_context(pa.ipc.new_file(self._file, self._schema))
        self._path = path

    def __enter__(self) -> Self:
        """Nothing more to open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file; whoever made the folder removes it."""
        self._stack.close()

    def write(self, table: pa.Table) -> None:
        """Add rows: of a table that has the columns, and may have more."""
        self._writer.write_table(table.select(self._schema.names))

    def read(self) -> dict[str, Texts]:
        """Return all rows by column, memory-mapped, not read; nothing can be written after it."""
        import pyarrow as pa

        self._stack.close()
        with self._path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()

        def let_go() -> None:
            # Pages that were read count as this process's memory until it says that they need not.
            mapped.madvise(mmap.MADV_DONTNEED)

        return {name: Texts(table[name], let_go) for name in table.column_names}


class Texts(Sequence[str]):
    """A column as texts, each made when it is asked for."""

    def __init__(self, column: pa.ChunkedArray, let_go: Callable[[], None] = lambda: None) -> None:
        """Remember where each chunk begins; `let_go` frees what was read, which may come again."""
        self._column = column
        self._let_go = let_go
        self._asked = 0
        self._chunks = column.chunks
        self._starts = [0]
        for chunk in self._chunks:
            self._starts.append(self._starts[-1] + len(chunk))

    def __len__(self) -> int:
        """How many there are."""
        return self._starts[-1]

    def array(self, begin: int, count: int) -> pa.Array:
        """Return texts from a place on, at most `count`, in memory of their own."""
        self._let_go()
        import pyarrow as pa

        some = self._column.slice(begin, count)
        return pa.concat_arrays(some.chunks) if some.num_chunks else pa.array([], pa.string())

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return one text, or those from one place to another."""
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            if step != 1:
                return [self[one] for one in range(first, last, step)]
            return list(self.array(first, max(0, last - first)).to_pylist())
        if not 0 <= place < len(self):
            raise IndexError(place)
        self._asked += 1
        if self._asked % _RESTED == 0:
            self._let_go()
        chunk = bisect_right(self._starts, place) - 1
        return str(self._chunks[chunk][place - self._starts[chunk]].as_py())
