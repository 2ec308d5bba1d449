"""Dataset versions put into a store directly, in the format of its objects, for tests of readers.

What ingest decides (splits, clusters, duplicates) a test decides itself here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from registry.catalog.catalog import Catalog
from registry.datasets.formats.content import Content, Message, content_hash, content_schema
from registry.datasets.versions.refs import refs_name
from registry.datasets.versions.row import refs_schema, rejects_schema
from registry.store.objects import ObjectRef, Parent, Store

_ROW_GROUP = 3  # so that a few rows are several


def content_record(uid: int, digest: str, content: Content) -> dict[str, Any]:
    """Return one line of `rows.parquet`."""
    return {
        "row_uid": uid,
        "row_hash": digest,
        "kind": content.kind,
        "messages": _structs(content.messages),
        "chosen": _structs(content.chosen),
        "rejected": _structs(content.rejected),
        "label": content.label,
        "tools": content.tools,
    }


def _structs(messages: Iterable[Message] | None) -> list[dict[str, Any]] | None:
    if messages is None:
        return None
    return [
        {
            "role": m.role,
            "content": m.content,
            "tool_calls": m.tool_calls,
            "name": m.name,
            "train": m.train,
        }
        for m in messages
    ]


@dataclass(frozen=True)
class Made:
    """A row of a version and where it stands."""

    content: Content
    split: str = "train"
    file: str = "data/a.jsonl"
    line: int = 1
    meta: str = "{}"
    tags: tuple[str, ...] = ()


def sft(question: str, answer: str, *, system: str | None = None) -> Content:
    head = () if system is None else (Message("system", system),)
    return Content("sft", (*head, Message("user", question), Message("assistant", answer)))


def rows_of(contents: Sequence[Content], split: str = "train") -> list[Made]:
    """Rows one below the other in one file."""
    return [Made(one, split, line=line) for line, one in enumerate(contents, 1)]


@dataclass
class Versions:
    """A store, and the contents that it has: a content keeps its uid and its `rows` object."""

    root: Path
    known: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.root)

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.root)

    def put(
        self,
        rows: Sequence[Made],
        *,
        name: str = "chat",
        license_: str | None = None,
        rejects: Sequence[Mapping[str, Any]] = (),
        commit: bool = True,
        parts: int = 1,
    ) -> str:
        """Put a version of these rows, its refs in so many files, and commit it; returns its id."""
        objects = [*self._new_contents(rows)]
        refs = [self._ref(position, row, name, license_) for position, row in enumerate(rows)]
        used = dict.fromkeys(self.known[ref["row_hash"]][1] for ref in refs)
        splits = [row.split for row in rows]
        meta = {
            "name": name,
            "rows": len(rows),
            "rejects": len(rejects),
            "splits": {split: splits.count(split) for split in dict.fromkeys(splits)},
            "license": license_,
            "leaks": {"exact": 0, "near": 0},
        }
        decides = [[r["row_hash"], r["split"], r["tags"], r["meta"]] for r in refs]
        with self.store.draft() as draft:
            for part in range(parts):
                begin, end = (len(refs) * number // parts for number in (part, part + 1))
                _write(draft / refs_name(part), refs[begin:end], refs_schema())
            if rejects:
                _write(draft / "rejects.parquet", rejects, rejects_schema())
            version = self.store.put(
                "dataset_version",
                draft,
                identity={"rows": _digest(decides), "license": license_},
                parents=[Parent(rows_id, "rows") for rows_id in used],
                meta=meta,
            )
        if commit:
            self.catalog.commit([*objects, version])
        return version.id

    def _new_contents(self, rows: Sequence[Made]) -> list[ObjectRef]:
        new = {content_hash(row.content): row.content for row in rows}
        lines = [
            content_record(len(self.known) + number, row_hash, content)
            for number, (row_hash, content) in enumerate(
                (pair for pair in new.items() if pair[0] not in self.known), 1
            )
        ]
        if not lines:
            return []
        with self.store.draft() as draft:
            _write(draft / "rows.parquet", lines, content_schema())
            identity = {"rows": _digest([line["row_hash"] for line in lines])}
            ref = self.store.put("rows", draft, identity=identity, meta={"rows": len(lines)})
        self.known.update((line["row_hash"], (line["row_uid"], ref.id)) for line in lines)
        return [ref]

    def _ref(self, position: int, row: Made, name: str, license_: str | None) -> dict[str, Any]:
        row_hash = content_hash(row.content)
        return {
            "row_uid": self.known[row_hash][0],
            "row_hash": row_hash,
            "split": row.split,
            "tags": list(row.tags),
            "cluster": position,
            "source": name,
            "source_file": row.file,
            "source_line": row.line,
            "sources": [{"file": row.file, "line": row.line, "split": row.split}],
            "license": license_,
            "meta": row.meta,
        }


def _write(path: Path, lines: Sequence[Mapping[str, Any]], schema: Any) -> None:
    table = pa.Table.from_pylist([dict(line) for line in lines], schema)
    pq.write_table(table, path, row_group_size=_ROW_GROUP)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
