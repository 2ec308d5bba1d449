"""Keeping an answer: a line in a file of a dataset, and with it a new version of the dataset.

What is kept stands in a file beside the other data, so that the next `gapmend ingest` has it too,
and lineage leads to its file and line.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from pipeline.ingest import allowed_labels, ingest
from pipeline.spec.subjects import subject
from pipeline.talk.line import NEW, line_of
from registry.errors import DataError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace
    from registry.datasets.sources.resolve import Sources

Kind = Literal["row", "item"]

_LINES = (".jsonl", ".ndjson")
_FOLDER = "data/kept"
_AT_ONCE = 1 << 20  # bytes
_FOUND = """
SELECT split FROM row_places WHERE version_id = ? AND dataset = ?
AND source_file = ? AND source_line = ?
"""


@dataclass(frozen=True)
class Kept:
    """An answer that was kept.

    Attributes:
        dataset: of which it is a row.
        file: where it stands, as lineage says it.
        line: counted from 1.
        version_id: the version that has it; None while the spec hasn't the dataset.
        split: where the split rules put it: train, dev, or held where it is nearly a row of
            another split.
        to_add: what has to be added to gapmend.yaml before it counts.
    """

    dataset: str
    file: str
    line: int
    version_id: str | None = None
    split: str | None = None
    to_add: str | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        place = f"{self.file}:{self.line}"
        if self.to_add is not None:
            return f"kept in {place}; to use it, add to gapmend.yaml: {self.to_add}"
        said = f"kept in {place}, {self.split} of {self.dataset} {str(self.version_id)[:12]}"
        if self.split == "held":
            return f"{said}: nearly a row of another split, so that nothing uses it"
        return said


def keep(
    ws: OpenWorkspace,
    ui: Ui,
    kind: Kind,
    name: str,
    turns: Sequence[Mapping[str, Any]],
    source: str,
) -> Kept:
    """Keep a conversation that ends with an answer.

    Args:
        ws: the workspace.
        ui: is told of the ingest.
        kind: `row` to train on, `item` to measure by, in dev; where the files of a dataset don't
            say what is dev, the split rules decide.
        name: of the dataset for a row, a new one if the spec hasn't it; of the capability or
            guard for an item.
        turns: role and content of each, the answer last.
        source: who answered.

    Raises:
        UserError: no such capability, no file that a line can be added to, a form that has no
            place for it, an answer that is none of its labels, or it is there already.
    """
    if kind == "item":
        what = subject(ws.spec, name)
        if what.spec.data is None:
            raise UserError(f"'{name}' brings its own items: none can be added")
        name = what.spec.data
    elif name not in ws.spec.datasets:
        return _kept_apart(ws, name, turns, source)
    _check_label(ws, name, str(turns[-1]["content"]))
    ws.state.mkdir(parents=True, exist_ok=True)
    with FileLock(ws.state / "keep.lock"):
        path, files = _place(ws, name, "dev" if kind == "item" else "train")
        line = line_of(files.format, turns, source)
        _check_new(ws, ui, name, files, line)
        return _added(ws, ui, name, path, line)


def _check_label(ws: OpenWorkspace, dataset: str, answer: str) -> None:
    allowed = allowed_labels(ws, dataset)
    if allowed is not None and answer not in allowed:
        raise DataError(
            f"the answer is none of the labels of {dataset}",
            expected=f"one of {', '.join(sorted(allowed))}",
            fix="give the right one instead",
        )


def _check_new(ws: OpenWorkspace, ui: Ui, dataset: str, files: Sources, line: str) -> None:
    """Look for a line's row before anything is written.

    An ingest that has it once more would be recorded, as what the same version says of its
    duplicates and leaks by now; to take the line out again doesn't take that back.

    Raises:
        UserError: it is no row, the dataset has it, or it was erased; files that can't be read.
    """
    from registry.datasets.formats.content import HELD, SPLITS
    from registry.datasets.formats.turns import UnusableError
    from registry.datasets.readers.record import Record
    from registry.datasets.sources.chunks import first_usable, usable
    from registry.datasets.versions.erased import erased_rows
    from registry.datasets.versions.read import VersionReader
    from registry.store.kinds import ErasureMeta

    try:
        row_hash = usable(Record(1, json.loads(line)), files.format, None).row_hash
    except UnusableError as error:
        raise DataError(f"this can't be a row: {error}") from None
    if row_hash in erased_rows(ws.store, ws.catalog.committed(ErasureMeta)):
        raise DataError("this was erased on purpose: nothing is kept")
    if first_usable(files) is None:
        return  # no version can be made of files without a row
    version = ingest(ws, ui, [dataset]).versions[dataset]
    found = VersionReader(ws.store, version, dataset).places((*SPLITS, HELD), [row_hash])
    if found:
        raise DataError(f"{dataset} has this already, in {found[0][1]}: nothing is kept")


def _kept_apart(
    ws: OpenWorkspace, name: str, turns: Sequence[Mapping[str, Any]], source: str
) -> Kept:
    """Keep it in a file of its own, for a dataset that the spec doesn't have yet."""
    from pydantic import TypeAdapter, ValidationError

    from pipeline.spec.spec import Name

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise UserError(
            f"no dataset can be called '{name}'", expected="letters, digits, '.', '_' and '-'"
        ) from None
    label = f"{_FOLDER}/{name}.jsonl"
    path = ws.root / label
    path.parent.mkdir(parents=True, exist_ok=True)
    number = _append(path, line_of(NEW, turns, source))
    return Kept(name, label, number, to_add=f"datasets: {{{name}: {{path: {label}}}}}")


def _place(ws: OpenWorkspace, dataset: str, split: str) -> tuple[Path, Sources]:
    """Return the file of a dataset's split that a line is added to, and all that it has now."""
    from registry.datasets.sources.resolve import sources
    from registry.store.paths import expand

    spec = ws.spec.datasets[dataset]
    place = spec.places.get(split) or spec.places.get("train")
    if spec.path is None or place is None or spec.format == "llamafactory":
        raise _no_file(dataset)
    if spec.encoding not in (None, "utf-8"):
        raise _no_file(dataset)
    if (ws.root / Path(expand(place))).is_dir():
        place = f"{place.rstrip('/')}/kept.jsonl"
    elif "*" in PurePath(place).name:
        place = str(PurePath(place).with_name(PurePath(place).name.replace("*", "kept", 1)))
    if PurePath(place).suffix not in _LINES or "*" in place:
        raise _no_file(dataset)
    return ws.root / Path(expand(place)), sources(spec, ws.root)


def _no_file(dataset: str) -> DataError:
    return DataError(
        f"the files of {dataset} are none that a line can be added to",
        where=f"datasets.{dataset}",
        expected=f"a path to {' or '.join(_LINES)}, or to a folder",
        fix="keep it in a dataset of its own, by a name that the spec hasn't",
    )


def _added(ws: OpenWorkspace, ui: Ui, dataset: str, path: Path, line: str) -> Kept:
    """Add a line and ingest; what becomes no row is taken out again."""
    before = path.stat().st_size if path.is_file() else None
    number = _append(path, line)
    try:
        label = _label(ws, dataset, path)
        version = ingest(ws, ui, [dataset]).versions[dataset]
        split = _split(ws, version, dataset, label, number)
    except BaseException:
        _take_back(path, before)
        raise
    return Kept(dataset, label, number, version, split)


def _label(ws: OpenWorkspace, dataset: str, path: Path) -> str:
    """Return how lineage says a file of a dataset.

    Raises:
        UserError: it is none of its files.
    """
    from registry.datasets.sources.resolve import source_files

    for file in source_files(ws.spec.datasets[dataset], ws.root):
        if file.path.resolve() == path.resolve():
            return file.label
    raise _no_file(dataset)


def _split(ws: OpenWorkspace, version: str, dataset: str, label: str, number: int) -> str:
    """Return where a version has the row of a line.

    Raises:
        UserError: nowhere: the files were changed meanwhile.
    """
    found = ws.catalog.query(_FOUND, [version, dataset, label, number]).rows
    if not found:
        raise DataError(
            f"{dataset} has no row of {label}:{number}: nothing is kept",
            fix="try again; its files, or what is erased, were changed meanwhile",
        )
    return str(found[0][0])


def _append(path: Path, line: str) -> int:
    """Append a line to a file; returns its number."""
    lines, last = 0, b"\n"
    with path.open("ab+") as file:
        file.seek(0)
        while part := file.read(_AT_ONCE):
            lines, last = lines + part.count(b"\n"), part[-1:]
        ended = last == b"\n"
        file.write((b"" if ended else b"\n") + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return lines + (1 if ended else 2)


def _take_back(path: Path, size: int | None) -> None:
    if size is None:
        path.unlink()
    else:
        os.truncate(path, size)
