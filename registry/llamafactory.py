"""LLaMA-Factory's data folders, read as they are: `dataset_info.json` and the files it names.

Its rules hold: with a `columns` (or `tags`) block present, a key that the block leaves out is
absent and not its default; a source on the Hub goes before a script, and a script before
`file_name`, which is a file or a folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from registry.errors import UserError
from registry.formats import Format, alpaca_shape, turns_shape
from registry.turns import Dialect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INFO = "dataset_info.json"
_HUBS = ("hf_hub_url", "ms_hub_url", "om_hub_url")
_MEDIA = ("images", "videos", "audios")
_ALPACA = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "system": "system",
    "tools": "tools",
}
_TURNS = {"messages": "messages", "system": "system", "tools": "tools"}
_ALPACA_DEFAULTS = {"instruction": "instruction", "input": "input", "output": "output"}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_MEANS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "call",
    "system_tag": "system",
}


@dataclass(frozen=True)
class Entry:
    """One entry of `dataset_info.json`, resolved: its files, their format, how many rows."""

    files: tuple[Path, ...]
    format: Format
    num_samples: int | None = None


def read_entry(folder: Path, name: str) -> Entry:
    """Return the entry `name` of the folder's `dataset_info.json`.

    Raises:
        UserError: no such folder, file or entry; an entry whose file is missing, which is on a
            hub, is a script, or needs pictures or sound.
    """
    info = _info(folder)
    where = f"{folder / INFO}: entry '{name}'"
    if name not in info:
        near = get_close_matches(name, info, n=1)
        raise UserError(
            f"no entry '{name}'",
            where=str(folder / INFO),
            expected=f"one of its {len(info)} entries",
            fix=f"did you mean '{near[0]}'?" if near else None,
        )
    entry = info[name]
    if not isinstance(entry, dict):
        raise UserError("not an object", where=where)
    files = _files(folder, entry, where)
    return Entry(files, _format(entry, where), _count(entry, where))


def _info(folder: Path) -> Mapping[str, Any]:
    path = folder / INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"can't be read: {error.strerror}",
            where=str(path),
            expected=f"a LLaMA-Factory data folder with {INFO}",
        ) from error
    except ValueError as error:
        raise UserError(f"malformed JSON: {error}", where=str(path)) from error
    if not isinstance(info, dict):
        raise UserError("not an object of entries", where=str(path))
    return info


def _files(folder: Path, entry: Mapping[str, Any], where: str) -> tuple[Path, ...]:
    for key in (*_HUBS, "script_url"):
        if entry.get(key):
            raise UserError(
                f"its rows are at {key} {entry[key]}, and a LLaMA-Factory entry is read here from "
                "local files alone",
                where=where,
                fix="download it and give the entry a file_name",
            )
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError("no file_name", where=where, expected="a file or folder beside it")
    path = folder / name
    if path.is_dir():
        files = tuple(sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != "."))
    else:
        files = (path,) if path.is_file() else ()
    if not files:
        raise UserError(
            f"its file {name} is missing", where=where, fix=f"put it in {folder}, or drop the entry"
        )
    return files


def _format(entry: Mapping[str, Any], where: str) -> Format:
    columns = entry.get("columns")
    media = [key for key in _MEDIA if isinstance(columns, dict) and columns.get(key)]
    if media:
        raise UserError(f"it needs {', '.join(media)}; only text is read", where=where)
    if columns is not None and not isinstance(columns, dict):
        raise UserError("columns is not an object", where=where)
    kind = entry.get("formatting", "alpaca")
    extra = _extra(entry, columns or {}, where)
    if kind == "alpaca":
        given = _ALPACA_DEFAULTS if columns is None else _renamed(columns, _ALPACA)
        shape = alpaca_shape(tuple(extra))
    elif kind in ("sharegpt", "openai"):
        given = {"messages": "conversations"} if columns is None else _renamed(columns, _TURNS)
        shape = turns_shape(_dialect(entry, where), strict=True, extra=tuple(extra))
    else:
        raise UserError(f"unknown formatting '{kind}'", where=where, expected="alpaca or sharegpt")
    needed = "instruction" if kind == "alpaca" else "messages"
    if needed not in given:
        key = "prompt" if kind == "alpaca" else "messages"
        raise UserError(f"its columns name no {key}", where=where)
    return Format(shape, {**given, **extra}, strict=True)


def _renamed(columns: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Return part -> column for the keys of a `columns` block that this formatting knows."""
    return {names[key]: str(column) for key, column in columns.items() if column and key in names}


def _extra(entry: Mapping[str, Any], columns: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the columns of two ranked answers, or of a thumb up or down."""
    if entry.get("ranking"):
        pair = {part: columns.get(part) for part in ("chosen", "rejected")}
        if not all(pair.values()):
            raise UserError("ranking needs the columns chosen and rejected", where=where)
        return {part: str(column) for part, column in pair.items()}
    return {"label": str(columns["kto_tag"])} if columns.get("kto_tag") else {}


def _dialect(entry: Mapping[str, Any], where: str) -> Dialect:
    """Return the words of the entry's turns; with a `tags` block, only what it lists."""
    tags = entry.get("tags")
    if tags is not None and not isinstance(tags, dict):
        raise UserError("tags is not an object", where=where)
    words = _TAGS if tags is None else {**dict.fromkeys(_TAGS), **tags}
    role, content = (words.get(key) or _TAGS[key] for key in ("role_tag", "content_tag"))
    roles = {words[tag]: means for tag, means in _MEANS.items() if words.get(tag)}
    return Dialect(role, content, roles)


def _count(entry: Mapping[str, Any], where: str) -> int | None:
    count = entry.get("num_samples")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise UserError(f"num_samples is {count!r}", where=where, expected="a number from 1")
    return count
