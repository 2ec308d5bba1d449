"""The result of a SQL query over the workspace's files, as a Parquet file in the cache.

The query runs in a process of its own, in the workspace's folder, with DuckDB's extensions and
the network off and no file in reach outside that folder and those that it names by `${NAME}`
(`sql_program.py`). Its rows are sorted by all columns, so that the same files give the
same rows in the same order.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import DataError
from registry.store.hashing import file_digest
from registry.store.paths import CACHE, expand

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_OUTSIDE = (
    "file system operations are disabled by configuration",
    "a query reads files that lie in the workspace, or in a folder that it names as ${NAME}",
)
_MEMORY = "4GiB"  # DuckDB keeps the rest on the disk; some thousand rows at a time have to fit
_SHOWN = 60  # characters of a query in a message
_Facts = tuple[tuple[str, int, int], ...]
_DONE: dict[tuple[Path, str], tuple[_Facts, Path]] = {}  # of this process


def query_file(sql: str, root: Path) -> Path:
    """Return the Parquet file with the rows of `sql`, named by the query and its result.

    Asked again in one process, the query runs only if a file of the workspace has changed.

    Raises:
        UserError: it is no single SELECT, or DuckDB can't run it.
    """
    root = root.resolve()
    named = _named_folders(sql)
    facts = tuple(f for folder in (str(root), *named.values()) for f in _facts(folder))
    before, path = _DONE.get((root, sql), (None, None))
    if before == facts and path is not None and path.is_file():
        return path
    folder = root / CACHE / "queries"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "result.parquet"
        _run(sql, root, named, made)
        path = folder / f"{query_name(sql)}-{file_digest(made)[:16]}.parquet"
        made.replace(path)
    _DONE[root, sql] = (facts, path)
    return path


def query_name(sql: str) -> str:
    """Return the digits that name a query."""
    import hashlib

    return hashlib.sha256(sql.encode()).hexdigest()[:16]


def _named_folders(sql: str) -> dict[str, str]:
    """Return the folder that each `${NAME}` in a query is.

    Raises:
        UserError: one is no folder. What a variable says otherwise may be anything, and a query
            could make rows of it.
    """
    folders = {}
    for name in _VARIABLE.findall(sql):
        folders[name] = expand(name)
        if not Path(folders[name]).is_dir():
            raise DataError(f"{name} is no folder", f'"{_shown(sql)}"', _OUTSIDE[1])
    return folders


def _run(sql: str, root: Path, named: Mapping[str, str], made: Path) -> None:
    project = str(Path(__file__).resolve().parents[3])
    text = sql
    for name, folder in named.items():
        text = text.replace(name, folder.replace("'", "''"))
    folders = [str(root), *named.values()]
    given = {"sql": text, "folders": folders, "file": str(made), "memory": _MEMORY}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "registry.datasets.sources.sql_program"],
        input=json.dumps(given),
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": project},
    )
    if done.returncode:
        said = " ".join(done.stdout.split()) or f"it ended with {done.returncode}"
        for name, folder in named.items():
            said = said.replace(folder, name)
        raise DataError(f"sql: {said.replace(*_OUTSIDE)}", where=f'"{_shown(sql)}"')


def _shown(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _facts(root: str) -> _Facts:
    """Return name, size and time of each file in a folder; hidden folders are left out."""
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = os.path.join(place, name)  # noqa: PTH118 - a workspace may have many files
            try:
                facts = os.stat(path)  # noqa: PTH116
            except OSError:
                continue  # a link that leads nowhere
            found.append((path, facts.st_size, facts.st_mtime_ns))
    return tuple(sorted(found))
