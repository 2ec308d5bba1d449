"""The files that a path of a dataset means: one file, all of a folder, or what a glob matches."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from registry.datasets.readers.read import KNOWN, file_type
from registry.errors import DataError
from registry.store.paths import expand, label

_MAGIC = re.compile(r"[*?\[]")
_NAMED = 5  # files that a message names
_SAVED = {"dataset_info.json", "state.json"}  # what `datasets` saves beside its Arrow files
_SAVED_SPLITS = "dataset_dict.json"


def data_files(text: str, root: Path) -> tuple[tuple[Path, str], ...]:
    """Return each file that `text` means, with the name by which it is recorded.

    A single file is returned whether it is there or not. The files of a folder, those of its
    folders among them, and those that a glob matches are sorted by name; hidden ones are left out.

    Raises:
        UserError: an unset variable, nothing matches, or a file of a type that isn't read.
    """
    path = root / Path(expand(text))
    if path.is_dir():
        return _checked(text, path, text, _inside(path, text), root)
    split = _split(text)
    if split is None or path.exists():
        return ((path, label(text, root)),)
    start, pattern = split
    folder = root / Path(expand(start))
    # Path.glob finds hidden files too.
    found = glob.glob(expand(pattern), root_dir=folder, recursive=True)  # noqa: PTH207
    names = [name for name in found if (folder / name).is_file()]
    return _checked(text, folder, start, names, root)


def files_in(folder: Path) -> tuple[str, ...]:
    """Return the names of the files in a folder and its folders, sorted; hidden ones left out."""
    names = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(place).relative_to(folder)
        names += [(relative / name).as_posix() for name in files if not name.startswith(".")]
    return tuple(sorted(names))


def refuse_unknown(names: list[str], where: str) -> None:
    """Refuse files of types that aren't read, and name them.

    Raises:
        UserError: there are any.
    """
    unknown = [name for name in names if file_type(Path(name)) is None]
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise DataError(
            f"not data files that can be read: {', '.join(unknown[:_NAMED])}{more}",
            where=where,
            expected=f"files that end in {KNOWN}",
            fix="name the files that are meant, as in data/*.jsonl",
        )


def _split(text: str) -> tuple[str, str] | None:
    """Return the folder before a glob's first wildcard, and the rest; None without a wildcard."""
    parts = Path(text).parts
    for count, part in enumerate(parts):
        if _MAGIC.search(part):
            return str(Path(*parts[:count])), str(Path(*parts[count:]))
    return None


def _inside(folder: Path, text: str) -> list[str]:
    """Return the data files of a folder; what `datasets` writes about itself is none."""
    names = files_in(folder)
    if _SAVED_SPLITS in names:
        raise DataError(
            "several splits, saved by `datasets`",
            where=text,
            fix=f"name each: path: {{train: {text.rstrip('/')}/train, test: …}}",
        )
    if "dataset_info.json" in names and "state.json" not in names:
        raise DataError(
            "a LLaMA-Factory folder, which holds several datasets",
            where=text,
            fix="set format: llamafactory, and name: one entry of its dataset_info.json",
        )
    return [name for name in names if name not in _SAVED or "state.json" not in names]


def _checked(
    text: str, folder: Path, start: str, names: list[str], root: Path
) -> tuple[tuple[Path, str], ...]:
    if not names:
        raise DataError("no file is there", where=text, expected=f"files that end in {KNOWN}")
    refuse_unknown(names, text)
    before = label(start, root)
    return tuple(
        (folder / name, f"{before}/{name}" if before not in ("", ".") else name)
        for name in sorted(names)
    )
