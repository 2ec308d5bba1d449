"""report: the account of an adapter as one file, for people."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from registry.errors import UserError
from registry.store.filenames import REPORTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.pages.charts import Picture
    from pipeline.workspace.store import WorkspaceStore

Form = Literal["html", "md"]
_ID = 12


@dataclass(frozen=True)
class ReportFiles:
    """What was written.

    Attributes:
        about: the id of the adapter, or of the gap where nothing was trained.
        path: of the report.
        charts: the pictures' files.
    """

    about: str
    path: Path
    charts: tuple[Path, ...] = ()


def report(
    ws: WorkspaceStore,
    thing: str | None = None,
    *,
    out: Path | None = None,
    form: Form = "html",
    charts: Path | None = None,
) -> ReportFiles:
    """Write the report of an adapter, a merged model or the newest gap.

    Args:
        ws: what the workspace keeps.
        thing: an id, the beginning of one, or an alias; by default the champion, else the newest
            adapter, else the newest gap.
        out: the file; by default one in `.gapmend/reports`.
        form: one HTML file, or Markdown.
        charts: a folder for each chart as PNG.

    Raises:
        UserError: nothing was measured yet, nothing has that name, or `out` is a folder.
    """
    from pipeline.pages.account import account
    from pipeline.pages.charts import pictures
    from pipeline.pages.html import html
    from pipeline.pages.items import changed_items
    from pipeline.pages.markdown import markdown
    from pipeline.pages.parts import parts

    if out is not None and out.is_dir():
        raise UserError(f"'{out}' is a folder", where="--out", expected="a file to write")
    told = account(ws, thing)
    drawn = pictures(told)
    changed = changed_items(ws, told.id, told.measured) if told.measured else ()
    made = parts(told, drawn, changed)
    written = html(told, made) if form == "html" else markdown(told, made)
    path = out or ws.state / REPORTS / f"{told.id[:_ID]}.{form}"
    _write(path, written.encode("utf-8", "replace"))
    files = _pictures(drawn, charts) if charts else ()
    return ReportFiles(told.id, path, files)


def report_of_run(ws: WorkspaceStore, thing: str) -> Path:
    """Return the report of a run's adapter or gap; written where something came since."""
    path = ws.state / REPORTS / f"{thing[:_ID]}.html"
    return path if _is_newest(ws, path) else report(ws, thing, out=path).path


def _is_newest(ws: WorkspaceStore, path: Path) -> bool:
    try:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)
    except OSError:
        return False
    with ws.catalog.reading() as connection:
        last = connection.execute("SELECT max(created_at) FROM catalog.objects").fetchone()
    return bool(last and last[0] < written)


def _pictures(drawn: Mapping[str, list[Picture]], folder: Path) -> tuple[Path, ...]:
    from pipeline.pages.charts import png

    files = []
    for one in (picture for found in drawn.values() for picture in found):
        path = folder / f"{one.name}.png"
        _write(path, png(one))
        files.append(path)
    return tuple(files)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
