"""Reports of the verbs of datasets, for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipeline.report.tables import table
from pipeline.workspace.amounts import in_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from pipeline.verbs.dataset import DatasetExport, VersionDiff
    from registry.datasets.history.diff import RowChange
    from registry.datasets.history.facts import DatasetEntry, VersionEntry, VersionFacts

_ID = 12
_SPLITS = ("train", "dev", "test", "held")
_SHOWN_SOURCES = 10
_TEXT = 160  # characters of a row
_TURN = 60  # and of each of its turns


def list_table(found: Sequence[DatasetEntry]) -> Table:
    """Return the datasets, one a line."""
    columns = ("dataset", "version", "of", *_SPLITS, "rejects", "licence", "tags", "made")
    rows = [
        (
            one.name,
            one.version_id[:_ID],
            one.versions,
            *(one.splits.get(split, 0) for split in _SPLITS),
            one.rejects,
            one.license,
            ", ".join(one.tags),
            one.created_at[:16].replace("T", " "),
        )
        for one in found
    ]
    return table("datasets", columns, rows)


def log_table(name: str, found: Sequence[VersionEntry]) -> Table:
    """Return the versions of a dataset, one a line."""
    columns = ("version", "made", "rows", "added", "removed", "rejects", "tags")
    rows = [
        (
            one.version_id[:_ID],
            one.created_at[:16].replace("T", " "),
            one.rows,
            one.added,
            one.removed,
            one.rejects,
            ", ".join(one.tags),
        )
        for one in found
    ]
    return table(name, columns, rows)


def facts_tables(facts: VersionFacts) -> list[RenderableType]:
    """Return all that is known of one version."""
    meta = facts.meta
    leaks = meta.get("leaks") or {}
    about = [
        ("dataset", facts.name),
        ("tags", ", ".join(facts.tags) or "-"),
        ("made", facts.created_at[:19].replace("T", " ")),
        ("licence", meta.get("license") or "-"),
        ("rows", _numbers(facts.splits)),
        ("kinds", _numbers(facts.kinds)),
        ("records read", meta.get("records", "-")),
        ("duplicates", meta.get("duplicates", "-")),
        ("clusters", meta.get("clusters", "-")),
        ("leaks between files", ", ".join(f"{n} {kind}" for kind, n in leaks.items()) or "-"),
    ]
    shown: list[RenderableType] = [
        Text(f"version {facts.version_id}"),
        table("", ("what", "value"), [(key, str(value)) for key, value in about]),
    ]
    sources = list(facts.sources.items())
    made = table("sources", ("file", "rows"), sources[:_SHOWN_SOURCES])
    if len(sources) > _SHOWN_SOURCES:
        made.caption = f"{_SHOWN_SOURCES} of {len(sources):,} files: --json has all"
    shown.append(made)
    if facts.rejects:
        rejects = [(reason, count, first) for reason, (count, first) in facts.rejects.items()]
        shown.append(table("rejects", ("reason", "rows", "first"), rejects))
    if facts.adapters:
        trained = [(one.adapter_id[:_ID], one.rows, one.created_at[:16]) for one in facts.adapters]
        shown.append(table("adapters trained on it", ("adapter", "rows", "made"), trained))
    if facts.first:
        shown.append(_rows_table("first rows", facts.first))
    return shown


def diff_tables(found: VersionDiff) -> list[RenderableType]:
    """Return what differs between two versions."""
    a, b = (f"{one.name} {one.id[:_ID]}" for one in (found.a, found.b))
    if found.a.id == found.b.id:
        return [Text(f"{a} and {b} are the same version")]
    counts = [("same", found.rows.same), *found.rows.counts.items()]
    shown: list[RenderableType] = [Text(f"{a} → {b}"), table("", ("rows", "number"), counts)]
    licenses = [one.meta.license or "none" for one in (found.a, found.b)]
    if licenses[0] != licenses[1]:
        shown.append(Text(f"licence: {licenses[0]} → {licenses[1]}"))
    elif not any(found.rows.counts.values()):
        shown.append(Text("the same rows in another order"))
    if found.shown is not None:
        shown.append(_changes_table(found.shown, found.rows.shown))
    return shown


def export_tables(report: DatasetExport) -> list[RenderableType]:
    """Return what was written, what was not, and how it is read again."""
    files = [(name, digest[:_ID]) for name, digest in report.files.items()]
    written = report.rows
    size = in_bytes(report.bytes)
    what = f"{report.name} {report.version[:_ID]}: {_numbers(written.splits)}"
    lines = [f"{what}, as {report.form} in {report.out} ({size})"]
    if written.left_out:
        more = "" if "held" not in written.left_out else "; held rows would leak, so name --split"
        lines.append(f"left out: {_numbers(written.left_out)}{more}")
    if written.erased:
        lines.append(f"{written.erased:,} rows were erased from the store and are not in it")
    lines += [f"to read it again: {json.dumps(one)}" for one in written.read_again]
    return [*map(Text, lines[:1]), table("", ("file", "sha256"), files), *map(Text, lines[1:])]


def brief(row: Mapping[str, Any]) -> Text:
    """Return a row in one short line, its control characters spelled out."""
    turns = [_turn(turn) for turn in row["messages"]]
    turns += [
        f"{part}: {_cut(' '.join(turn['content'] for turn in row[part]), _TURN)}"
        for part in ("chosen", "rejected")
        if row[part]
    ]
    if row["label"] is not None:
        turns.append("good" if row["label"] else "bad")
    return Text(_cut(" | ".join(turns), _TEXT))


def _turn(turn: Mapping[str, Any]) -> str:
    said = turn["content"] or (turn["tool_calls"] or "")
    return _cut(said, _TURN) if turn["role"] == "text" else f"{turn['role']}: {_cut(said, _TURN)}"


def _cut(text: str, most: int) -> str:
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode()
                   for one in text)  # fmt: skip


def _rows_table(title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    found = [(row["row_uid"], row["split"], _place(row), brief(row)) for row in rows]
    return table(title, ("row", "split", "where", "what it says"), found)


def _changes_table(title: str, changes: Sequence[RowChange]) -> Table:
    lines = []
    for change in changes:
        for sign, row in (("-", change.before), ("+", change.after)):
            if row is not None:
                lines.append((sign, row["row_uid"], row["split"], _place(row), brief(row)))
    return table(title, ("", "row", "split", "where", "what it says"), lines)


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['source_file']}:{row['source_line']}"


def _numbers(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "-"
