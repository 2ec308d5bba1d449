"""A row of a dataset version: its content, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.datasets.formats.content import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one dataset version; `source_line` counts from 1, `meta` is a JSON object."""

    uid: int
    row_hash: str
    kind: str
    messages: tuple[Message, ...]
    chosen: tuple[Message, ...] | None
    rejected: tuple[Message, ...] | None
    label: bool | None
    tools: str | None
    split: str
    cluster: int
    dataset: str
    source_file: str
    source_line: int
    license: str
    tags: tuple[str, ...]
    meta: str

    @property
    def text(self) -> str:
        """All that it says, one turn a line: what is embedded and compared."""
        turns = (*self.messages, *(self.chosen or ()))
        return "\n".join(turn.content for turn in turns if turn.content)

    @property
    def question(self) -> str:
        """What it asks: its user turns, or all of a plain text."""
        asked = [turn.content for turn in self.messages if turn.role in {"user", "text"}]
        return "\n".join(asked)


def refs_schema() -> pa.Schema:
    """Return the schema of `refs.parquet`: one line per row; `sources` lists every occurrence.

    `source` is the dataset's name; `source_file` and `source_line` are the first occurrence.
    """
    import pyarrow as pa

    text = pa.string()
    source = pa.struct([("file", text), ("line", pa.int64()), ("split", text)])
    return pa.schema(
        [
            ("row_uid", pa.int64()),
            ("row_hash", text),
            ("split", text),
            ("tags", pa.list_(text)),
            ("cluster", pa.int64()),
            ("source", text),
            ("source_file", text),
            ("source_line", pa.int64()),
            ("sources", pa.list_(source)),
            ("license", text),
            ("meta", text),
        ]
    )


def rejects_schema() -> pa.Schema:
    """Return the schema of `rejects.parquet` at ingest: what was not taken, and why."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [("stage", text), ("reason", text), ("source_file", text), ("source_line", pa.int64())]
    )


def row_from(ref: Mapping[str, Any], record: Mapping[str, Any]) -> Row:
    """Join one line of `refs.parquet` with its line of `rows.parquet`."""
    return Row(
        uid=ref["row_uid"],
        row_hash=ref["row_hash"],
        kind=record["kind"],
        messages=_messages(record["messages"]) or (),
        chosen=_messages(record["chosen"]),
        rejected=_messages(record["rejected"]),
        label=record["label"],
        tools=record["tools"],
        split=ref["split"],
        cluster=ref["cluster"],
        dataset=ref["source"],
        source_file=ref["source_file"],
        source_line=ref["source_line"],
        license=ref["license"] or "",
        tags=tuple(ref["tags"]),
        meta=ref["meta"],
    )


def _messages(structs: Iterable[Mapping[str, Any]] | None) -> tuple[Message, ...] | None:
    return None if structs is None else tuple(Message(**struct) for struct in structs)
