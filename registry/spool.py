"""Texts of many rows on the disk: written batch by batch, read back by place."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, overload

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import pyarrow as pa


class Spool:
    """Columns of texts in one file, which is mapped into memory to be read."""

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

    def read(self) -> pa.Table:
        """Return all rows, mapped and not read; nothing can be written after it."""
        import pyarrow as pa

        self._stack.close()
        mapped = self._stack.enter_context(pa.memory_map(str(self._path)))
        return pa.ipc.open_file(mapped).read_all()


class Texts(Sequence[str]):
    """A column as texts, each made when it is asked for."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        """Remember where each chunk begins."""
        self._chunks = column.chunks
        self._starts = [0]
        for chunk in self._chunks:
            self._starts.append(self._starts[-1] + len(chunk))

    def __len__(self) -> int:
        """How many there are."""
        return self._starts[-1]

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return one text, or those from one place to another."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        chunk = bisect_right(self._starts, place) - 1
        return str(self._chunks[chunk][place - self._starts[chunk]].as_py())
