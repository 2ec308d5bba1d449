"""The export of a dataset version for other programs: a folder of files, one a split.

Rows are streamed from the store's Parquet through the form into the files, in the version's order.
What a form can't say stops the export, with the row's place and what to do.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from registry.catalog.sql import fill
from registry.datasets.export import llamafactory as dataset_llamafactory
from registry.datasets.export import parquet as dataset_parquet
from registry.datasets.export.forms import FORMATS, RowGroup, layout
from registry.datasets.formats.content import HELD, SPLITS, Content, Message
from registry.datasets.formats.turns import UnusableError
from registry.datasets.sources.llamafactory import INFO
from registry.datasets.versions.query import WHOLE, joined, open_connection, records, version_files
from registry.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from registry.datasets.choices import FormName
    from registry.datasets.export.forms import FormLayout
    from registry.datasets.formats.content import Kind
    from registry.datasets.history.names import Version
    from registry.store.objects import Store

_BATCH = 2_000  # rows in Python at a time
_encoded = json.JSONEncoder(ensure_ascii=False).encode
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_HINT = "--format parquet has room for every other column, jsonl for every turn"
_GROUPS = """
WITH turns AS (
    SELECT row_uid, kind, tools IS NOT NULL AS tools,
           list_concat(messages, coalesce(chosen, []), coalesce(rejected, [])) AS said
    FROM v_rows
), facts AS (
    SELECT row_uid, kind, tools,
           len([t FOR t IN said IF t.tool_calls IS NOT NULL]) > 0 AS calls,
           len([t FOR t IN said IF t.role = 'tool']) > 0 AS results,
           len([t FOR t IN said IF t.name IS NOT NULL]) > 0 AS names,
           len([t FOR t IN said IF t.train IS NOT NULL]) > 0 AS weights
    FROM turns
)
SELECT refs.split, kind, count(*) AS rows, bool_or(tools) AS tools, bool_or(calls) AS calls,
       bool_or(results) AS results, bool_or(names) AS names, bool_or(weights) AS weights
FROM facts JOIN v_refs AS refs USING (row_uid) GROUP BY ALL ORDER BY ALL
"""
# A scan of one file keeps its order, which is the version's: nothing is sorted.
_REFS = """
SELECT row_uid, row_hash, split, cluster, source_file, source_line, license, tags, meta, position
FROM v_refs WHERE split IN ?
"""


@dataclass(frozen=True)
class ExportedFiles:
    """What was written: rows by split, and how the spec of gapmend names the files to read them.

    `left_out` counts the rows of splits that were not asked for, `erased` those whose content is
    gone from the store. `read_again` has a dataset of the spec for each kind of rows (for
    LLaMA-Factory, each entry), its paths in the folder.
    """

    splits: dict[str, int]
    left_out: dict[str, int]
    erased: int
    read_again: list[dict[str, Any]]


@dataclass(frozen=True)
class _Files:
    """The files of an export: each group has one."""

    folder: Path
    form: FormName
    name: str
    groups: tuple[RowGroup, ...]

    def path(self, group: RowGroup) -> str:
        """Return the file of a group, in the folder."""
        if self.form in ("parquet", "datasets"):
            return f"{'data/' if self.form == 'datasets' else ''}{self.stem(group)}.parquet"
        return f"{self.stem(group)}.jsonl"

    def stem(self, group: RowGroup) -> str:
        """Return the split, and the kind where there are several."""
        return group.split if len(self.kinds) == 1 else f"{group.split}-{group.kind}"

    def entry(self, group: RowGroup) -> str:
        """Return the name of a group in dataset_info.json."""
        return f"{self.name}_{self.stem(group).replace('-', '_')}"

    @property
    def kinds(self) -> list[Kind]:
        return list(dict.fromkeys(group.kind for group in self.groups))

    def with_tools(self, kind: Kind) -> bool:
        return any(group.with_tools for group in self.groups if group.kind == kind)

    def of_kind(self, kind: Kind) -> dict[str, str]:
        """Return split -> file for the groups of a kind."""
        return {group.split: self.path(group) for group in self.groups if group.kind == kind}


def export_version(
    store: Store,
    version: Version,
    folder: Path,
    form: FormName,
    *,
    splits: Sequence[str] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> ExportedFiles:
    """Write a version's rows into `folder`, which is there and empty.

    Args:
        store: where the version is.
        version: which one.
        folder: where to.
        form: what is written.
        splits: only these; by default train, dev and test.
        advance: told the number of rows written since the last call.

    Raises:
        UserError: an unknown split, no row in those asked for, or a row that the form can't say.
        StoreError: the version's files are missing or damaged.
    """
    for split in splits:
        if split not in (*SPLITS, HELD):
            raise DataError(f"no split is called '{split}'", expected=", ".join((*SPLITS, HELD)))
    wanted = splits or SPLITS
    stored = version_files(store, version.id, version.name)
    with open_connection(store, v=stored) as connection:
        every = [RowGroup(**line) for line in records(connection, _GROUPS)]
        there = {
            line["split"]: line["rows"]
            for line in records(connection, "SELECT split, count(*) AS rows FROM v_refs GROUP BY 1")
        }
        groups = tuple(g for s in (*SPLITS, HELD) if s in wanted for g in every if g.split == s)
        if not groups:
            raise DataError(f"this version has no rows in {', '.join(wanted)}")
        name = _UNFIT.sub("-", version.name).strip("-.") or "rows"
        files = _Files(folder, form, name, groups)
        _begin(files, version)
        with ExitStack() as stack:
            write = {(g.split, g.kind): stack.enter_context(_writer(files, g)) for g in groups}
            refs, chunk = fill(_REFS, [tuple(wanted)]), stored.chunk_rows()
            for batch in joined(connection, refs, WHOLE, _BATCH, chunk=chunk):
                rows = batch.to_pylist()
                for key, some in groupby(rows, lambda row: (row["split"], row["kind"])):
                    write[key]([*some])
                advance(len(rows))
    return ExportedFiles(
        {
            split: sum(group.rows for group in groups if group.split == split)
            for split in dict.fromkeys(group.split for group in groups)
        },
        {split: rows for split, rows in sorted(there.items()) if split not in wanted},
        sum(there.values()) - sum(group.rows for group in every),
        _read_again(files, version.meta.license),
    )


def _begin(files: _Files, version: Version) -> None:
    """Write what stands beside the rows, before them: a form that can't be is refused at once."""
    if files.form == "datasets":
        (files.folder / "data").mkdir()
        configs = {kind: files.of_kind(kind) for kind in files.kinds}
        text = dataset_parquet.readme(version, configs)
        (files.folder / "README.md").write_text(text, encoding="utf-8")
    elif files.form == "llamafactory":
        info = {}
        for group in files.groups:
            with_tools = files.with_tools(group.kind)
            try:
                made = dataset_llamafactory.entry(
                    files.path(group), group.kind, with_tools=with_tools
                )
            except UnusableError as error:
                raise DataError(
                    str(error), expected="a version of another kind", fix=_HINT
                ) from None
            info[files.entry(group)] = made
            (files.folder / files.path(group)).touch()
        text = json.dumps(info, indent=2, ensure_ascii=False)
        (files.folder / INFO).write_text(f"{text}\n", encoding="utf-8")


@contextmanager
def _writer(files: _Files, group: RowGroup) -> Iterator[Callable[[Sequence[dict[str, Any]]], None]]:
    """Open the file of a group; gives the function that writes lines of the version."""
    path = files.folder / files.path(group)
    if files.form == "parquet" or files.form == "datasets":  # noqa: PLR1714 - mypy narrows by it
        how = layout("parquet", group.kind)
        schema = dataset_parquet.schema(group)
        with dataset_parquet.opened(path, schema) as write_table:
            yield lambda rows: write_table([_placed(how, row) for row in rows])
        return
    if files.form == "llamafactory":
        how = dataset_llamafactory.layout(
            files.folder, files.entry(group), with_tools=files.with_tools(group.kind)
        )
    else:
        how = layout(files.form, group.kind)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda rows: file.writelines(_encoded(_whole(how, row)) + "\n" for row in rows)


def _placed(how: FormLayout, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a row, with where it is from beside it."""
    with _naming(row):
        return how.checked(_content(row)) | {key: row[key] for key in dataset_parquet.PLACES}


def _whole(how: FormLayout, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a row, with the columns that it came with beside it."""
    with _naming(row):
        return how.with_columns(how.checked(_content(row)), row["meta"])


@contextmanager
def _naming(row: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except UnusableError as error:
        raise DataError(
            f"this row can't be written in that form: {error}",
            where=f"{row['source_file']}:{row['source_line']} (row {row['row_uid']})",
            fix=_HINT,
        ) from error


def _content(row: Mapping[str, Any]) -> Content:
    turns = {
        part: None if row[part] is None else tuple(Message(**turn) for turn in row[part])
        for part in ("messages", "chosen", "rejected")
    }
    return Content(
        row["kind"],
        turns["messages"] or (),
        chosen=turns["chosen"],
        rejected=turns["rejected"],
        label=row["label"],
        tools=row["tools"],
    )


def _read_again(files: _Files, license_: str | None) -> list[dict[str, Any]]:
    """Return datasets for a spec, their paths in the exported folder."""
    more = {} if license_ is None else {"license": license_}
    if files.form == "llamafactory":
        return [
            {"path": ".", "format": "llamafactory", "name": files.entry(group), **more}
            for group in files.groups
        ]
    return [{"path": files.of_kind(kind), "format": FORMATS[kind], **more} for kind in files.kinds]
