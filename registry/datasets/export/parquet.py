"""Exported rows as Parquet: columns of the kind, and where each row is from."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from registry.datasets.export.forms import RowGroup
    from registry.datasets.formats.content import Kind
    from registry.datasets.history.names import Version

PLACES = ("row_hash", "cluster", "source_file", "source_line", "license", "tags", "meta")


def schema(group: RowGroup) -> pa.Schema:
    """Return the columns of one file; a turn has only the fields that some turn of it has."""
    import pyarrow as pa

    text = pa.string()
    turns = pa.list_(_turn(group))
    columns: dict[Kind, list[tuple[str, Any]]] = {
        "sft": [("messages", turns)],
        "text": [("text", text)],
        "preference": [("prompt", turns), ("chosen", turns), ("rejected", turns)],
        "feedback": [("prompt", turns), ("completion", turns), ("label", pa.bool_())],
    }
    tools = [("tools", text)] if group.tools else []
    numbers = {"cluster": pa.int64(), "source_line": pa.int64(), "tags": pa.list_(text)}
    places = [(name, numbers.get(name, text)) for name in PLACES]
    return pa.schema([*columns[group.kind], *tools, *places])


@contextmanager
def opened(path: Path, columns: pa.Schema) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Open a new file; gives the function that writes some records."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, columns, compression="zstd") as file:
        yield lambda records: file.write_table(pa.Table.from_pylist(records, columns))


def readme(version: Version, configs: Mapping[Kind, Mapping[str, str]]) -> str:
    """Return the README.md by which `datasets.load_dataset` finds the files of each split.

    Several kinds of rows are several configurations, named by kind.
    """
    import yaml

    listed = [
        {
            "config_name": "default" if len(configs) == 1 else kind,
            "data_files": [{"split": split, "path": path} for split, path in files.items()],
        }
        for kind, files in configs.items()
    ]
    head = {"pretty_name": version.name, "configs": listed}
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"
        f"Version `{version.id}` of dataset {version.name}, licence: "
        f"{version.meta.license or 'not recorded'}.\n\n"
        "`row_hash` names a row's content; near-duplicates share a `cluster`; `meta` is a JSON "
        "object of the columns that the row came with.\n"
    )


def _turn(group: RowGroup) -> Any:
    import pyarrow as pa

    text = pa.string()
    fields: list[tuple[str, Any]] = [("role", text), ("content", text)]
    if group.calls:
        function = pa.struct([("name", text), ("arguments", text)])
        call = pa.struct([("type", text), ("function", function)])
        fields.append(("tool_calls", pa.list_(call)))
    if group.names:
        fields.append(("name", text))
    if group.weights:
        fields.append(("weight", pa.int8()))
    return pa.struct(fields)
