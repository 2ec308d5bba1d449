"""The YAML files of lm-eval tasks, found and read without loading lm-eval or running any code.

A guard names an installed task, or a file of the user's own. Such a file is code: it may name
functions beside it (`!function`) and whatever loads its data.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from registry.errors import MachineError, SpecError
from registry.store.hashing import digest, file_digest
from registry.store.paths import resolve

FUNCTION = "!function"
"""YAML's tag for a function of Python's; read here as the text `!function module.name`."""

_SUFFIXES = (".yaml", ".yml")


def installed_tasks() -> Path:
    """Return the folder in which lm-eval keeps its tasks."""
    found = find_spec("lm_eval")
    if found is None or found.origin is None:
        raise MachineError("lm-eval is not installed", fix="run: ./just setup")
    return Path(found.origin).parent / "tasks"


def is_file(named: str) -> bool:
    """Return whether `lm_eval:` means a file of the user's own, rather than an installed task."""
    return named.endswith(_SUFFIXES)


def own_file(named: str | None, root: Path) -> Path | None:
    """Return the user's own file that `lm_eval:` names in a spec in `root`; None for a task's name.

    Raises:
        UserError: a variable in the path is not set.
    """
    if named is None or not is_file(named):
        return None
    return resolve(named, root).resolve()


def task_file(named: str, root: Path, where: str | None = None) -> Path:
    """Return the YAML file of the task that `lm_eval:` names; `where` names the key in errors.

    Raises:
        UserError: lm-eval has no such task, the file can't be read, or it is a group of tasks.
    """
    own = own_file(named, root)
    if own is None:
        return _installed(named, where)
    config = read_task(own, where)
    if "group" in config:
        raise SpecError(
            f"{own} is a group of lm-eval tasks", where, expected="the file of one task"
        )
    if not isinstance(config.get("task"), str):
        raise SpecError(f"{own} names no task", where, expected="a key `task:` with its name")
    return own


def read_task(path: Path, where: str | None = None) -> dict[str, Any]:
    """Return what a task's file says, with what it includes.

    Raises:
        UserError: it or an included file can't be read, or is not YAML.
    """
    return _merged(path, where, {})


def task_digest(path: Path) -> str:
    """Return the digest of a task of the user's own: which file it is, and what is beside it.

    Every Python and YAML file in its folder and below counts, and every included file wherever it
    is; folders with a dot in front don't.

    Raises:
        UserError: as `read_task`.
    """
    included: dict[Path, dict[str, Any]] = {}
    _merged(path, None, included)
    files = {*included, *_beside(path.parent)}
    named = {os.path.relpath(file, path.parent): file_digest(file) for file in files}
    return digest({"task": path.name, "files": named})


def _installed(name: str, where: str | None) -> Path:
    """Return the file of an installed task: the first that holds its name."""
    line = re.compile(
        rf"""^["']?(task|group|tag)["']?\s*:\s*["']?{re.escape(name)}["']?\s*$""", re.MULTILINE
    )
    several = False
    for path in _holding(name):
        kinds = line.findall(path.read_text(encoding="utf-8", errors="replace"))
        if "task" in kinds:
            return path
        several = several or bool(kinds)
    if several:
        raise SpecError(
            f"{name} is a group of lm-eval tasks", where, expected="the name of one task"
        )
    raise SpecError(
        f"lm-eval has no task {name}",
        where,
        expected="a name that `gapmend lm-eval ls tasks` lists, or a task's .yaml file",
    )


def _holding(text: str) -> list[Path]:
    """Return the installed files that hold a text, in order.

    There are 14,000: to make a path of each, sort and decode them takes three times as long.
    """
    wanted = text.encode()
    found: list[Path] = []
    for folder, _, files in os.walk(installed_tasks()):
        for file in files:
            if file.endswith(".yaml"):
                with open(f"{folder}/{file}", "rb", buffering=0) as opened:  # noqa: PTH123 - as above
                    if wanted in opened.read():
                        found.append(Path(folder, file))
    return sorted(found)


def _merged(path: Path, where: str | None, seen: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Return a file's settings over those that it includes, as lm-eval merges them."""
    if path in seen:
        raise SpecError(f"{path} includes itself", where)
    settings = seen[path] = _read(path, where)
    included = settings.get("include", [])
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        merged |= _merged((path.parent / str(name)).resolve(), where, seen)
    return merged | settings


def _read(path: Path, where: str | None) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "invalid UTF-8"
        raise SpecError(f"the task file {path} can't be read: {said}", where) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"the task file {path} is not YAML: {error}", where) from error
    if not isinstance(value, dict):
        raise SpecError(f"the task file {path} is no task", where, expected="a mapping of keys")
    return value


def _beside(folder: Path) -> list[Path]:
    """Return the Python and YAML files in a folder and below it."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".") and one != "__pycache__"]
        found += [Path(place, name) for name in names if name.endswith((".py", *_SUFFIXES))]
    return found


class _Loader(yaml.SafeLoader):
    """Plain data, in which a function is its name."""


_Loader.add_constructor(FUNCTION, lambda _, node: f"{FUNCTION} {node.value}")
