"""A dataset version as Parquet for the Hub, and back: the same rows, the same id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.collect import Collected, Entry, Occurrence
from registry.datasets import DatasetSpec
from registry.errors import UserError
from registry.rows import HELD, SPLITS, Content, Message, content_hash, content_schema, user_text
from registry.splits import Assignment
from registry.versions import ContentWriter, known_contents, write_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from registry.catalog import Catalog
    from registry.store import ObjectRef, Store

_BATCH = 1_000
_PLACES = ("position", "split", "cluster", "meta", "source_file", "source_line")


def write_rows(store: Store, version: ObjectRef, folder: Path) -> dict[str, Path]:
    """Write a version's rows as `data/<split>.parquet` into `folder`; returns path -> file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(version.path / "refs.parquet") as file:
        refs = file.read().to_pylist()
    places = {ref["row_uid"]: (position, ref) for position, ref in enumerate(refs)}
    lines: dict[str, list[dict[str, Any]]] = {}
    for content in _contents(store, version):
        if content["row_uid"] in places:
            position, ref = places[content["row_uid"]]
            line = content | {"position": position} | {key: ref[key] for key in _PLACES[1:]}
            lines.setdefault(ref["split"], []).append(line)
    written = {}
    (folder / "data").mkdir()
    for split in (*SPLITS, HELD):
        if found := sorted(lines.get(split, ()), key=lambda line: int(line["position"])):
            path = folder / "data" / f"{split}.parquet"
            table = pa.Table.from_pylist(found, _schema())
            pq.write_table(table, path, compression="zstd")
            written[f"data/{split}.parquet"] = path
    return written


def take_rows(
    store: Store, catalog: Catalog, folder: Path, *, name: str, license_: str | None, where: str
) -> tuple[ObjectRef, ...]:
    """Put the rows of `data/*.parquet` into the store as a version; the caller commits it.

    Args:
        store: where to.
        catalog: what is there already.
        folder: with `data/`.
        name: what the dataset is called here.
        license_: of its rows.
        where: what the files are recorded as, such as owner/name@commit.

    Returns:
        Every object to commit, the version last.

    Raises:
        UserError: a row whose content isn't what its hash says, or a file that is no such Parquet.
    """
    lines = _checked(folder, where)
    known = known_contents(store, catalog)
    found = Collected()
    placed: list[tuple[str, int]] = []
    with ContentWriter(store, catalog, known) as writer:
        for path, line in lines:
            content, row_hash = _content(line), str(line["row_hash"])
            if content_hash(content) != row_hash or row_hash in found.entries:
                raise UserError(
                    f"row {line['position']} is not what its hash says", f"{where}/{path}"
                )
            occurrence = Occurrence(line["source_file"], line["source_line"], line["split"])
            found.entries[row_hash] = Entry(
                row_hash, user_text(content), line["meta"], [occurrence]
            )
            placed.append((line["split"], line["cluster"]))
            writer.take(row_hash, content)
        writer.put()
        found.records = len(placed)
        assignment = Assignment(
            tuple(split for split, _ in placed), tuple(cluster for _, cluster in placed), ()
        )
        spec = DatasetSpec(path=where, license=license_)
        return write_version(store, name, spec, found, assignment, known).objects


def _contents(store: Store, version: ObjectRef) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for parent in store.manifest(version)["parents"]:
        if parent["role"] == "rows":
            path = store.get("rows", parent["id"]).path / "rows.parquet"
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    yield from batch.to_pylist()


def _checked(folder: Path, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every line in its order, each with a place that a row may have.

    Raises:
        UserError: there are none, or one is not so; it names the file.
    """
    import json

    lines = list(_lines(folder))
    for path, line in lines:
        whole = all(isinstance(line[key], int) for key in ("position", "cluster", "source_line"))
        try:
            meta = json.loads(line["meta"])
        except (TypeError, ValueError, RecursionError):
            meta = None
        if not whole or line["split"] not in (*SPLITS, HELD) or not isinstance(meta, dict):
            raise UserError(f"row {line['position']} has no such place", f"{where}/{path}")
    lines.sort(key=lambda pair: int(pair[1]["position"]))
    if [line["position"] for _, line in lines] != list(range(len(lines))) or not lines:
        raise UserError("its rows are not numbered one after another from 0", where)
    return lines


def _lines(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted((folder / "data").glob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                for field in _schema():
                    found = (
                        file.schema_arrow.field(field.name)
                        if field.name in (file.schema_arrow.names)
                        else None
                    )
                    if found is None or found.type != field.type:
                        raise UserError(
                            f"column {field.name} is missing or no {field.type}",
                            f"data/{path.name}",
                        )
                for batch in file.iter_batches(batch_size=_BATCH):
                    yield from ((f"data/{path.name}", line) for line in batch.to_pylist())
        except pa.ArrowException as error:
            raise UserError(f"not a whole Parquet file: {error}", f"data/{path.name}") from None


def _content(line: Mapping[str, Any]) -> Content:
    def turns(key: str) -> tuple[Message, ...] | None:
        given = line[key]
        return None if given is None else tuple(Message(**one) for one in given)

    return Content(
        line["kind"],
        turns("messages") or (),
        turns("chosen"),
        turns("rejected"),
        line["label"],
        line["tools"],
    )


def _schema() -> pa.Schema:
    import pyarrow as pa

    content = [field for field in content_schema() if field.name != "row_uid"]
    numbers = {"position", "cluster", "source_line"}
    places = [pa.field(n, pa.int64() if n in numbers else pa.string()) for n in _PLACES]
    return pa.schema([*content, *places])
