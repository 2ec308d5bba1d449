"""A copy of what is taken in: allowed files alone, each a file, each what its record says.

Everything after this reads the copy: whatever else lies in a folder from outside is never seen.
"""

from __future__ import annotations

import fnmatch
import json
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from registry.errors import ModelError
from registry.publish.parcel import ALLOWED, CARD, RECORD, Kind
from registry.store.copying import copy_file
from registry.store.filenames import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CHANGED_CONFIG,
    CHANGED_WEIGHTS,
    MODEL_CONFIG,
)
from registry.store.hashing import digest, file_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_MOST_RECORD_BYTES = 16 << 20
_MOST_CARD_BYTES = 4 << 20
_MOST_HEAD = 256 << 10  # characters of YAML: its parser takes seconds for a megabyte
_MOST_NAME = 200
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ParcelRecord(BaseModel):
    """`gapmend.json`: which object it is that was pushed, and the files that make it."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal[1]
    kind: Kind
    id: Digest
    identity: dict[str, Any]
    base: str | None = None
    license: str | None = None
    files: dict[str, Digest] = Field(min_length=1)


def read_record(folder: Path, where: str) -> ParcelRecord | None:
    """Read the record in a folder; None where there is none.

    Raises:
        UserError: not one that this version can read, or its id isn't that of what it says.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    where = f"{where}: {RECORD}"
    try:
        record = ParcelRecord.model_validate(json.loads(_small(path, _MOST_RECORD_BYTES, where)))
        named = digest({"kind": record.kind, "identity": record.identity})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        raise ModelError(f"{key!r}: {first['msg']}", where, fix="update gapmend") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"not a record of gapmend ({type(error).__name__})", where) from None
    if named != record.id:
        raise ModelError("it names an id that is not that of what it describes", where)
    for name in record.files:
        if (
            not any(fnmatch.fnmatchcase(name, one) for one in ALLOWED[record.kind])
            or not name.isprintable()
            or ".." in name
        ):
            raise ModelError(f"{name!r} is no file of a {record.kind}", where)
    _check_files(record, where)
    return record


def copy_allowed(
    folder: Path,
    copy: Path,
    record: ParcelRecord | None,
    *,
    links: bool,
    where: str,
    told: Callable[[int, int], None] = lambda _done, _of: None,
) -> None:
    """Copy what may be taken in from `folder` to `copy`.

    Args:
        folder: from outside.
        copy: an empty folder.
        record: what should be there; without one, the files of an adapter.
        links: the folder is the Hub's cache, which is made of links.
        where: for messages.
        told: how many bytes are copied, of how many.

    Raises:
        UserError: a file is missing, no file at all, a link, or not what the record says.
    """
    names = record.files if record else _adapter_files(folder)
    for name in names:
        _regular(folder / name, name, where, links=links)
    done, total = 0, sum((folder / name).stat().st_size for name in names)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        told(done, total)

    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        copy_file(folder / name, copy / name, advance)
        if record is not None and file_digest(copy / name) != record.files[name]:
            raise ModelError(f"{name} is not what its record says", where, fix="fetch it again")


def license_beside(folder: Path, record: ParcelRecord | None, where: str) -> str | None:
    """The licence that its record, or else its card, says; None where neither does."""
    if record is not None and record.license:
        return as_name(record.license)
    card = folder / CARD
    if not card.is_file():
        return None
    import yaml

    try:
        data = yaml.safe_load(_front_matter(_small(card, _MOST_CARD_BYTES, where)))
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError):
        return None  # the last ones are PyYAML's own for values that are none of their type
    return as_name(data.get("license")) if isinstance(data, dict) else None


def as_name(given: object) -> str | None:
    """Return a licence that can stand in a line; None for what can't be the name of one."""
    fits = isinstance(given, str) and given.isprintable() and len(given) <= _MOST_NAME
    return str(given).strip() or None if fits else None


def _front_matter(text: str) -> str:
    """Return the YAML between the card's first line and the next, each of three dashes."""
    lines = text.split("\n")
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    head = "\n".join(lines[1 : ends[1]]) if len(ends) > 1 and ends[0] == 0 else ""
    return head if len(head) <= _MOST_HEAD else ""


def _check_files(record: ParcelRecord, where: str) -> None:
    """The files must be those that the identity names: what is not in an id could be anything."""
    named: Mapping[str, Any] | None = record.identity.get("files")
    if record.kind == "model" and "changed" in record.identity:
        told = {CHANGED_WEIGHTS: "changed", CHANGED_CONFIG: "config"}
        if any(record.files.get(name) != record.identity.get(key) for name, key in told.items()):
            raise ModelError("its files are not those that its identity names", where)
        return
    if record.kind == "model" and named != record.files:
        raise ModelError("its files are not those that its identity names", where)
    if record.kind == "model" and MODEL_CONFIG not in record.files:
        raise ModelError("a model without config.json", where)
    wanted = {ADAPTER_CONFIG, ADAPTER_WEIGHTS}
    if record.kind == "adapter" and not wanted <= record.files.keys():
        raise ModelError("an adapter without its configuration or weights", where)


def _adapter_files(folder: Path) -> list[str]:
    known = [name for name in ALLOWED["adapter"] if "*" not in name and (folder / name).exists()]
    templates = sorted(folder.glob("additional_chat_templates/*.jinja"))
    return [*known, *(path.relative_to(folder).as_posix() for path in templates)]


def _regular(path: Path, name: str, where: str, *, links: bool) -> None:
    try:
        mode = (path.stat() if links else path.lstat()).st_mode
    except OSError:
        raise ModelError(f"{name} is missing", where, fix="fetch it again") from None
    folders = path.parents[: len(PurePosixPath(name).parts) - 1]
    if stat.S_ISLNK(mode) or (not links and any(folder.is_symlink() for folder in folders)):
        raise ModelError(f"{name} is a link", where, "the file itself")
    if not stat.S_ISREG(mode):
        raise ModelError(f"{name} is no file", where, "a file")


def _small(path: Path, most: int, where: str) -> str:
    """Read a text file of a bounded size."""
    _regular(path, path.name, where, links=True)
    if path.stat().st_size > most:
        raise ModelError(f"{path.name} has {path.stat().st_size} bytes", where, f"{most} at most")
    return path.read_text("utf-8")
