"""The columns that the spec maps, looked for in the records of each file."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class FileColumns:
    """The columns that some of a file's records have; none where no record could be read."""

    label: str
    records: int
    columns: Collection[str]


@dataclass(frozen=True)
class LostColumn:
    """A part whose column isn't there: what is wrong, and in whose place another may be meant."""

    part: str
    what: str
    expected: str
    fix: str | None


def lost_columns(
    mapped: Mapping[str, str],
    required: Collection[str],
    files: Sequence[FileColumns],
    *,
    first: bool = False,
) -> Iterator[LostColumn]:
    """Yield each column that is needed and not in some file, or that is in none of them.

    Args:
        mapped: part -> column, as the spec has them.
        required: columns without which no record can be used.
        files: what was read of them.
        first: these were their first records, and not all.
    """
    files = [file for file in files if file.columns]
    for part, column in mapped.items():
        without = [file for file in files if column not in file.columns]
        everywhere = len(without) == len(files)
        if not without or (column not in required and not everywhere):
            continue
        file = without[0]
        near = get_close_matches(column, file.columns, n=1)
        others = ", and no other file has it" if everywhere and len(files) > 1 else ""
        yield LostColumn(
            part,
            f"none of the {'first ' if first else ''}{file.records:,} records of {file.label} has "
            f"a column '{column}'{others}",
            f"one of its columns {', '.join(file.columns)}",
            f"did you mean '{near[0]}'?" if near else None,
        )
