"""The files behind a dataset, wherever they are, and the format that they are in."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from registry.datasets.formats.content import SPLITS
from registry.datasets.formats.detect import DetectedFormat, detect, why_not
from registry.datasets.formats.format import Format
from registry.datasets.formats.shapes import SHAPES, Shape, conversational
from registry.datasets.formats.turns import OPENAI, Dialect
from registry.datasets.readers.read import columns_of, read_records, taken_as
from registry.datasets.readers.reading import AS_FOUND, Reading, remedy
from registry.datasets.sources.files import data_files
from registry.datasets.sources.llamafactory import Entry, read_entry
from registry.datasets.sources.sql import query_file, query_name
from registry.errors import DataError
from registry.hub.dataset import HubSource, hub_files
from registry.store.paths import label, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from registry.datasets.spec import DatasetSpec

_SAMPLE = 100  # records that may be unreadable before the format is given up on


@dataclass(frozen=True)
class SourceFile:
    """One file of a dataset; `label` is how it is recorded, without this machine's folders."""

    path: Path
    label: str
    split: str
    reading: Reading = AS_FOUND


@dataclass(frozen=True)
class Sources:
    """The files of a dataset and how to read them; at most `num_samples` rows of them.

    `name` and `why` say for people which format it is and how that is known, `taken` what of a file
    isn't read as its ending says, such as another separator.
    """

    files: tuple[SourceFile, ...]
    format: Format
    num_samples: int | None = None
    name: str = ""
    why: str = ""
    taken: tuple[str, ...] = ()


def source_files(spec: DatasetSpec, root: Path) -> tuple[SourceFile, ...]:
    """Return the files that a dataset names; a single file whether it is there or not.

    Raises:
        UserError: a path with an unset variable, a folder or glob without data files, a
            LLaMA-Factory folder or entry, a dataset of the Hub or a query at fault.
    """
    if spec.format == "llamafactory":
        return _of_entry(_entry(spec, root), str(spec.path), root)
    if spec.hub is not None:
        source = HubSource(spec.hub, spec.revision, spec.subset, splits=spec.places)
        found = [SourceFile(f.path, f.label, f.split) for f in hub_files(source, root)]
    elif spec.sql is not None:
        found = [
            SourceFile(query_file(sql, root), f"sql-{query_name(sql)}", split)
            for split, sql in spec.places.items()
        ]
    else:
        found = [
            SourceFile(path, name, split)
            for split, text in spec.places.items()
            for path, name in data_files(text, root)
        ]
    return tuple(sorted(found, key=lambda file: SPLITS.index(file.split)))


def sources(spec: DatasetSpec, root: Path) -> Sources:
    """Return the files of a dataset with their format, and check the columns they declare.

    Raises:
        UserError: as `source_files`; a file that is missing, that no format fits, or that lacks
            a column.
    """
    reading = Reading(spec.encoding, spec.separator)
    files = tuple(replace(file, reading=reading) for file in source_files(spec, root))
    if spec.format == "llamafactory":
        entry = _entry(spec, root)
        found = Sources(files, entry.format, entry.num_samples, "llamafactory", entry.why)
    else:
        found = _described(spec, files)
    for file in files:
        _check_columns(file, found.format)
    return replace(found, taken=_taken(files))


def _taken(files: tuple[SourceFile, ...]) -> tuple[str, ...]:
    """Say what was taken for what, each thing once, with the first file that it is so in."""
    where: dict[str, list[str]] = {}
    for file in files:
        for said in taken_as(file.path, file.reading):
            where.setdefault(said, []).append(file.label)
    return tuple(
        f"{first}{f' and {len(more)} more' if more else ''}: {said}"
        for said, (first, *more) in where.items()
    )


# --------------------------------------------------------------------------- LLaMA-Factory


def _entry(spec: DatasetSpec, root: Path) -> Entry:
    return read_entry(resolve(str(spec.path), root), str(spec.name))


def _of_entry(entry: Entry, folder: str, root: Path) -> tuple[SourceFile, ...]:
    if entry.hub is not None:
        found = hub_files(entry.hub, root)
        return tuple(SourceFile(file.path, file.label, "train") for file in found)
    before = label(folder, root)
    return tuple(SourceFile(path, f"{before}/{name}", "train") for path, name in entry.files)


# ------------------------------------------------------------------------------- the format


def _described(spec: DatasetSpec, files: tuple[SourceFile, ...]) -> Sources:
    from registry.datasets.spec import unknown_part

    if spec.format is not None:
        found = DetectedFormat(spec.format, "the spec names it")
    else:
        found = _detected(files, spec.columns)
        if found.name == "sharegpt" and (spec.turns or spec.roles):
            # Turns that the spec describes are in no order that LLaMA-Factory asks for.
            columns = {"messages": "conversations", **found.columns}
            found = replace(found, name="messages", columns=columns)
    if wrong := unknown_part(spec.columns, found.name):
        raise DataError(wrong, where=files[0].label)
    form = Format(_shape(spec, found), {**found.columns, **spec.columns})
    return Sources(files, form, None, found.name, found.why)


def _shape(spec: DatasetSpec, found: DetectedFormat) -> Shape:
    """Return the format's shape; the spec may say how its turns are written."""
    if not (spec.turns or spec.roles):
        dialect = found.dialect
        return SHAPES[found.name] if dialect is None else conversational(dialect)[found.name]
    shapes = conversational(_dialect(spec, found.dialect or OPENAI))
    if found.name not in shapes:
        written = "turns" if spec.turns else "roles"
        raise DataError(
            f"{written} is for the formats {', '.join(shapes)}, and this is {found.name}",
            fix="name its format",
        )
    return shapes[found.name]


def _dialect(spec: DatasetSpec, usual: Dialect) -> Dialect:
    dialect = usual
    if spec.turns is not None:
        dialect = replace(
            dialect,
            role_key=spec.turns.role,
            content_key=spec.turns.content,
            train_key=spec.turns.train,
        )
    return replace(dialect, roles=_roles(spec.roles)) if spec.roles else dialect


def _roles(said: Mapping[Any, list[str]]) -> Mapping[str, str]:
    """Return word -> role: what the spec lists, and the roles' own names."""
    own = {role: role for role in ("system", "user", "assistant", "tool")}
    listed = {
        word: "call" if role == "function_call" else role
        for role, words in said.items()
        for word in words
    }
    return {**own, **listed}


def _detected(files: tuple[SourceFile, ...], columns: Mapping[str, str]) -> DetectedFormat:
    """Return the format that the first readable record looks like."""
    first, where, wrong = None, files[0].label, None
    for file in files:
        for count, record in enumerate(read_records(file.path, file.reading)):
            wrong = wrong or (f"{file.label}:{record.line}", record.error)
            if record.value is not None or count >= _SAMPLE:
                first, where = record.value, file.label
                break
        if first is not None:
            break
    if first is None and wrong is not None:
        place, error = wrong
        raise DataError(
            f"no record can be read, the first one is: {error}",
            where=place,
            fix=remedy(error or ""),
        )
    found = detect(first or {}, columns)
    if found is None:
        named = ", ".join(map(str, first)) if first else "none"
        raise DataError(
            f"no format fits this file, whose first record has the columns: {named}",
            where=where,
            fix=why_not(first or {}),
        )
    return found


def _check_columns(file: SourceFile, form: Format) -> None:
    """Refuse a file whose header lacks a column that is needed or that the spec maps."""
    declared = columns_of(file.path, file.reading)
    if declared is None:
        return
    mapped = () if form.strict else form.columns.values()
    for column in dict.fromkeys((*form.required_columns, *mapped)):
        if column not in declared:
            raise DataError(
                f"no column '{column}'",
                where=f"{file.label}:1",
                expected=f"one of its columns {', '.join(declared)}",
                fix=_fix(column, declared),
            )


def _fix(column: str, declared: tuple[str, ...]) -> str:
    """Return what may help where a table has no such column."""
    apart = next((one for one in ";\t|" if len(declared) == 1 and one in declared[0]), None)
    if apart is not None:
        return f"if {json.dumps(apart)} stands between its fields, name it under separator:"
    near = get_close_matches(column, declared, n=1)
    return f"did you mean '{near[0]}'?" if near else "map it under columns:"
