"""Files as people have them: read with all they say, or one line; the docs' table is made of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from registry.datasets.duplicates.hash_index import HashIndex
from registry.datasets.formats.content import answer, user_text
from registry.datasets.formats.turns import UnusableError
from registry.datasets.readers.read import read_records
from registry.datasets.sources.chunks import RejectedRecord, usable
from registry.datasets.sources.resolve import Sources, sources
from registry.datasets.spec import DatasetSpec
from registry.datasets.versions.collect import CollectedRows, Occurrences, check_rejects
from registry.errors import UserError
from tests.support.file_kinds import COLUMNS, KINDS, ROWS, FileKind

PAGE = Path(__file__).resolve().parents[4] / "docs/reference/formats/as-people-have-them.md"
HEAD = """\
# Files as people have them

Each is read, and `ingest` and its dry run say as what, or refused in one line.
A test makes this table from what happens; all files that are read give the same two rows.

|what|file|what happens|
|---|---|---|
"""
named = pytest.mark.parametrize("kind", [pytest.param(one, id=one.title) for one in KINDS])


def found(kind: FileKind, folder: Path) -> tuple[Sources, list[dict[str, str]]]:
    """Return the sources and rows of a file; as at ingest, it is refused where none can be used."""
    kind.write(folder)
    spec = DatasetSpec(path=kind.name, columns=COLUMNS, **kind.spec)
    seen = sources(spec, folder)
    rows, rejects = [], []
    for file in seen.files:
        for record in read_records(file.path, file.reading):
            try:
                content = usable(record, seen.format, None).content
            except UnusableError as error:
                rejected = RejectedRecord(file.label, record.line, error.reason, error.detail)
                rejects.append(rejected)
            else:
                rows.append({"text": user_text(content), "label": answer(content)})
    nothing = np.empty(0, np.int64)
    collected = CollectedRows(
        index=HashIndex(),
        files=(),
        occurrences=Occurrences(nothing, nothing.astype(np.int32), nothing),
        uids=nothing,
        rejects=tuple(rejects),
        records=len(rows) + len(rejects),
    )
    check_rejects(collected, spec.allow_rejects, "mail")
    return seen, rows


def line_of(kind: FileKind, folder: Path) -> str:
    """Return the line of the table on one kind of file."""
    try:
        seen, _ = found(kind, folder)
    except UserError as error:
        said = str(error).replace(f"{folder}/", "")
        happens = f"refused: {said}"
    else:
        keys = "".join(f" with `{key}: {value}`" for key, value in kind.spec.items())
        taken = [one.partition(": ")[2] for one in seen.taken]
        happens = f"read{keys}" + (f": {', '.join(taken)}" if taken else "")
    title = kind.title.replace("|", "\\|")
    return f"|{title}|`{kind.name}`|{happens.replace('|', chr(92) + '|')}|"


@named
def test_it_is_read_whole_or_refused_in_one_line(tmp_path: Path, kind: FileKind) -> None:
    if kind.is_read:
        assert found(kind, tmp_path)[1] == ROWS
        return
    with pytest.raises(UserError) as raised:
        found(kind, tmp_path)
    assert kind.name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "allow_rejects" not in str(raised.value)


def test_the_table_in_docs_is_what_happens(tmp_path: Path) -> None:
    """`GAPMEND_WRITE_DOCS=1` writes it."""
    made = HEAD + "\n".join(line_of(kind, tmp_path) for kind in KINDS) + "\n"
    if os.environ.get("GAPMEND_WRITE_DOCS"):
        PAGE.write_text(made, "utf-8")
    assert PAGE.read_text("utf-8") == made
