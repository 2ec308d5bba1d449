"""Rows from outside, checked before one is kept: what they unpack to, their columns, their content.

A Parquet file of some kilobytes may unpack to gigabytes, and what it says of itself may be a lie.
So all of it is read once in a process of its own that gets little memory, and only then here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from registry.datasets.formats.content import HELD, SPLITS, Content, Kind, Message, content_hash
from registry.datasets.sources.chunks import UsableRecord, table_of
from registry.datasets.spec import DatasetSpec
from registry.datasets.versions.collect import Collector
from registry.datasets.versions.contents import ContentWriter
from registry.datasets.versions.erased import erased_rows
from registry.datasets.versions.splits import CODED, Assignment
from registry.datasets.versions.spool import Spool
from registry.datasets.versions.version import write_version
from registry.errors import DataError, UserError
from registry.publish.rows import NUMBERS, parcel_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from registry.catalog.catalog import Catalog
    from registry.datasets.versions.version import WrittenVersion
    from registry.store.objects import Store

_BATCH = 1_000
_ROLES = frozenset({"system", "user", "assistant", "tool", "text"})
# Text that compresses well takes a fiftieth at best; a small file may be all repetition.
_MOST_TIMES = 50
_ALWAYS_BYTES = 512 << 20
_ROOM_BYTES = 1 << 30  # beside what is read, for the reader


def read_rows(folder: Path, where: str) -> list[tuple[dict[str, Any], Content]]:
    """Return every row of `data/*.parquet` in its order: its line, and what it says.

    Args:
        folder: with `data/`; nobody else changes it.
        where: for messages.

    Raises:
        UserError: too much when unpacked, no such Parquet, no row, one twice, or one that isn't
            what its hash says or has no place; it names the file.
    """
    _check_unpacked(folder, where)
    found: dict[str, tuple[dict[str, Any], Content]] = {}
    for name, batch in _batches(folder, where):
        for line in _plain(batch, f"{where}/{name}"):
            content = _checked(line, f"{where}/{name}")
            if line["row_hash"] in found:
                raise DataError(f"row {line['position']} is there twice", f"{where}/{name}")
            found[line["row_hash"]] = (line, content)
    rows = sorted(found.values(), key=lambda pair: int(pair[0]["position"]))
    if not rows or [line["position"] for line, _ in rows] != list(range(len(rows))):
        raise DataError("its rows are not numbered one after another from 0", where)
    return rows


def _check_unpacked(folder: Path, where: str) -> None:
    size = sum(path.stat().st_size for path in _files(folder))
    most = max(_ALWAYS_BYTES, _MOST_TIMES * size)
    done = subprocess.run(
        [sys.executable, "-m", "registry.intake.rows", str(folder), where, str(most)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[2],
    )
    if done.returncode:
        said = (done.stdout.splitlines() or [""])[-1]
        raise DataError(said or _too_much(most), None if said else where)


def _too_much(most: int) -> str:
    return f"its rows take more than {most >> 20} MiB when unpacked, or can't be read"


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("*.parquet"))


def _batches(folder: Path, where: str) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Every batch of every file, with the columns of a parcel and no others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in _files(folder):
        name = f"data/{path.name}"
        try:
            with pq.ParquetFile(path) as file:
                _check_columns(file.schema_arrow, f"{where}/{name}")
                columns = parcel_schema().names
                for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
                    yield name, batch
        except MemoryError:  # also one of Arrow's
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(
                f"not a whole Parquet file: {_printable(said)}", f"{where}/{name}"
            ) from None


def _check_columns(found: pa.Schema, where: str) -> None:
    for field in parcel_schema():
        places = found.get_all_field_indices(field.name)
        if [found.field(place).type for place in places] != [field.type]:
            raise DataError(f"column {field.name} is missing or no {field.type}", where)


def _plain(batch: pa.RecordBatch, where: str) -> list[dict[str, Any]]:
    try:
        lines: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        raise DataError("a text is not UTF-8", where) from None
    return lines


def _checked(line: Mapping[str, Any], where: str) -> Content:
    """Return what a line says; it has a place and is what its hash says."""
    whole = all(isinstance(line[key], int) for key in NUMBERS)
    place = line["split"] in (*SPLITS, HELD) and isinstance(line["source_file"], str)
    if not whole or not place or not isinstance(_json(line["meta"]), dict):
        raise DataError(f"row {line['position']} has no such place", where)
    if not _is_content(line):
        raise DataError(f"row {line['position']} is no row of a known kind", where)
    content = Content(
        line["kind"],
        _turns(line["messages"]) or (),
        _turns(line["chosen"]),
        _turns(line["rejected"]),
        line["label"],
        line["tools"],
    )
    if content_hash(content) != line["row_hash"]:
        raise DataError(f"row {line['position']} is not what its hash says", where)
    return content


def _turns(given: list[dict[str, Any]] | None) -> tuple[Message, ...] | None:
    return None if given is None else tuple(Message(**one) for one in given)


def _is_content(line: Mapping[str, Any]) -> bool:
    """Whether a line has the parts that its kind has, see `Content`."""
    kind, pair = line["kind"], (line["chosen"], line["rejected"])
    return (
        kind in get_args(Kind)
        and _are_turns(line["messages"])
        and (all(map(_are_turns, pair)) if kind == "preference" else pair == (None, None))
        and (line["label"] is not None) == (kind == "feedback")
        and _is_list(line["tools"])
    )


def _are_turns(given: list[dict[str, Any] | None] | None) -> bool:
    return bool(given) and all(
        turn is not None
        and turn["role"] in _ROLES
        and turn["content"] is not None
        and _is_list(turn["tool_calls"])
        for turn in given or ()
    )


def _is_list(text: str | None) -> bool:
    return text is None or isinstance(_json(text), list)


def _json(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)


def _limit(more: int) -> None:
    """Let this process take only so many bytes more than it has (where Linux tells how many)."""
    import resource

    taken = Path("/proc/self/statm")
    if taken.exists():
        most = int(taken.read_text().split()[0]) * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _unpack(folder: Path, where: str, most: int) -> None:
    """Read everything once and count it.

    Raises:
        UserError: it is more than `most` bytes, or no such Parquet.
        MemoryError: a single part is more than this process gets.
    """
    import pyarrow as pa
    import pyarrow.parquet  # before memory is limited

    pa.set_memory_pool(pa.system_memory_pool())  # the others set aside addresses in advance
    _limit(_ROOM_BYTES + 2 * most)
    total = 0
    for _, batch in _batches(folder, where):
        total += batch.nbytes
        if total > most:
            raise DataError(_too_much(most), where)


if __name__ == "__main__":
    try:
        _unpack(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except (UserError, MemoryError) as refused:
        sys.stdout.write(str(refused) if isinstance(refused, UserError) else "")
        sys.exit(1)


def take_rows(
    store: Store, catalog: Catalog, folder: Path, *, name: str, license_: str | None, where: str
) -> WrittenVersion:
    """Put the rows of `data/*.parquet` into the store as a version; the caller commits it.

    Args:
        store: where to.
        catalog: what is there already.
        folder: with `data/`.
        name: what the dataset is called here.
        license_: of its rows.
        where: what the files are recorded as, such as owner/name@commit.

    Raises:
        UserError: a row that isn't what it says, or a file that is no such Parquet.
    """
    from registry.store.kinds import ErasureMeta, RowsMeta

    rows = read_rows(folder, where)
    there = catalog.committed_of(RowsMeta, ErasureMeta)
    erased = erased_rows(store, there[ErasureMeta.of_kind])
    if gone := sum(erased.among(str(line["row_hash"]) for line, _ in rows)):
        raise DataError(f"{gone} of its rows were erased from this store on purpose", where)
    with (
        store.draft() as scratch,
        Spool(scratch / "beside.arrow", ("meta", "text")) as spool,
        ContentWriter(store, catalog, there["rows"]) as writer,
    ):
        collector = Collector(writer, spool)
        files: dict[tuple[str, str], int] = {}
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            table = table_of(
                [UsableRecord(c, str(line["row_hash"]), line["meta"]) for line, c in some]
            )
            at = [(str(line["source_file"]), str(line["split"])) for line, _ in some]
            numbers = np.array([files.setdefault(one, len(files)) for one in at], np.int32)
            collector.add(table, numbers, [line["source_line"] for line, _ in some])
        collector.reject((), len(rows))
        writer.put()
        found = collector.collected(list(files))
        assignment = Assignment(
            np.array([CODED.index(line["split"]) for line, _ in rows], np.uint8),
            np.array([line["cluster"] for line, _ in rows], np.int64),
            (),
        )
        spec = DatasetSpec(path=where, license=license_)
        metas = spool.read()["meta"]
        return write_version(store, name, spec, found, metas, assignment, writer.known)
