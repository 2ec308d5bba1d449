"""LLaMA-Factory's data folders, read as they are: `dataset_info.json` and the files it names.

Its rules hold: with a `columns` (or `tags`) block present, a key that the block leaves out is
absent and not its default; a source on the Hub goes before a script, and a script before
`file_name`, which is a file or a folder.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from registry.datasets.formats.format import Format
from registry.datasets.formats.shapes import TEXT, alpaca_shape, strict_shape
from registry.datasets.formats.turns import Dialect
from registry.datasets.sources.files import files_in, refuse_unknown
from registry.errors import DataError
from registry.hub.dataset import HubSource

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INFO = "dataset_info.json"
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")  # the oldest datasets have no owner
_OTHER_HUBS = ("ms_hub_url", "om_hub_url")
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
    """One entry of `dataset_info.json`, resolved: where its rows are, their format, how many.

    Attributes:
        files: each file with its name in the folder; none where `hub` says where the rows are.
        format: how a record becomes a row.
        num_samples: take at most so many rows.
        hub: the dataset on the Hub that the entry names.
        why: what the format was read from, for people.
    """

    files: tuple[tuple[Path, str], ...]
    format: Format
    num_samples: int | None = None
    hub: HubSource | None = None
    why: str = ""


def read_entry(folder: Path, name: str) -> Entry:
    """Return the entry `name` of the folder's `dataset_info.json`.

    Raises:
        UserError: no such folder, file or entry; an entry whose file is missing, which is on
            another hub, is a script, or needs pictures or sound.
    """
    info = _info(folder)
    where = f"{folder / INFO}: entry '{name}'"
    if name not in info:
        near = get_close_matches(name, info, n=1)
        raise DataError(
            f"no entry '{name}'",
            where=str(folder / INFO),
            expected=f"one of its {len(info)} entries",
            fix=f"did you mean '{near[0]}'?" if near else None,
        )
    entry = info[name]
    if not isinstance(entry, dict):
        raise DataError("not an object", where=where)
    hub = _hub(entry, where)
    files = () if hub is not None else _files(folder, entry, where)
    form = _format(entry, where)
    why = f"entry '{name}' of {INFO}, {entry.get('formatting', 'alpaca')}"
    return Entry(files, form, _count(entry, where), hub, why)


def _info(folder: Path) -> Mapping[str, Any]:
    path = folder / INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(
            f"can't be read: {error.strerror}",
            where=str(path),
            expected=f"a LLaMA-Factory data folder with {INFO}",
        ) from error
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", where=str(path)) from error
    if not isinstance(info, dict):
        raise DataError("not an object of entries", where=str(path))
    return info


def _hub(entry: Mapping[str, Any], where: str) -> HubSource | None:
    """Return the Hub's dataset that the entry names, which goes before a script and a file."""
    repo = entry.get("hf_hub_url")
    if not repo:
        return None
    if not isinstance(repo, str) or not _REPO.fullmatch(repo):
        raise DataError(f"hf_hub_url is {repo!r}", where=where, expected="owner/name")
    texts = {key: _text(entry, key, where) for key in ("revision", "subset", "folder", "split")}
    split = texts["split"] or "train"
    if not split.replace("_", "").replace("-", "").isalnum():
        raise DataError(f"split is '{split}'", where=where, expected="the name of one split")
    return HubSource(
        repo, texts["revision"], texts["subset"], texts["folder"], splits={"train": split}
    )


def _files(folder: Path, entry: Mapping[str, Any], where: str) -> tuple[tuple[Path, str], ...]:
    for key in (*_OTHER_HUBS, "script_url"):
        if entry.get(key):
            told = (
                "a dataset's script is never run" if key == "script_url" else "that hub isn't asked"
            )
            raise DataError(
                f"its rows are at {key} {entry[key]}, and {told}",
                where=where,
                fix="download it and give the entry a file_name alone",
            )
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError("no file_name", where=where, expected="a file or folder beside it")
    if (split := _text(entry, "split", where)) not in (None, "train"):
        raise DataError(
            f"split is '{split}', and files beside it are train alone",
            where=where,
            fix="give the split a file and an entry of its own",
        )
    path = folder / name
    names = files_in(path) if path.is_dir() else ()
    if path.is_file():
        return ((path, name),)
    if not names:
        raise DataError(
            f"its file {name} is missing", where=where, fix=f"put it in {folder}, or drop the entry"
        )
    refuse_unknown(list(names), where)
    return tuple((path / inner, f"{name.rstrip('/')}/{inner}") for inner in names)


def _text(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is None or (isinstance(value, str) and value):
        return value
    raise DataError(f"{key} is {value!r}", where=where, expected="a text")


def _format(entry: Mapping[str, Any], where: str) -> Format:
    columns = entry.get("columns")
    media = [key for key in _MEDIA if isinstance(columns, dict) and columns.get(key)]
    if media:
        raise DataError(f"it needs {', '.join(media)}; only text is read", where=where)
    if columns is not None and not isinstance(columns, dict):
        raise DataError("columns is not an object", where=where)
    kind = entry.get("formatting", "alpaca")
    extra = _extra(entry, columns or {}, where)
    if kind == "alpaca":
        given = _ALPACA_DEFAULTS if columns is None else _renamed(columns, _ALPACA)
        if set(given) == {"instruction"} and not extra:  # as its pre-training sets have it
            return Format(TEXT, {"text": given["instruction"]}, strict=True)
        shape = alpaca_shape(tuple(extra))
        needed: tuple[str, ...] = ("prompt", "query")
    elif kind in ("sharegpt", "openai"):
        given = {"messages": "conversations"} if columns is None else _renamed(columns, _TURNS)
        results = kind == "openai"
        shape = strict_shape(_dialect(entry, where), extra=tuple(extra), several_results=results)
        needed = ("messages",)
    else:
        expected = "alpaca, sharegpt or openai"
        raise DataError(f"unknown formatting '{kind}'", where=where, expected=expected)
    names = _ALPACA if kind == "alpaca" else _TURNS
    if not any(names[key] in given for key in needed):
        raise DataError(f"its columns name no {' or '.join(needed)}", where=where)
    return Format(shape, {**given, **extra}, strict=True)


def _renamed(columns: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Return part -> column for the keys of a `columns` block that this formatting knows."""
    return {names[key]: str(column) for key, column in columns.items() if column and key in names}


def _extra(entry: Mapping[str, Any], columns: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the columns of two ranked answers, or of a thumb up or down."""
    if entry.get("ranking"):
        pair = {part: columns.get(part) for part in ("chosen", "rejected")}
        if not all(pair.values()):
            raise DataError("ranking needs the columns chosen and rejected", where=where)
        return {part: str(column) for part, column in pair.items()}
    return {"label": str(columns["kto_tag"])} if columns.get("kto_tag") else {}


def _dialect(entry: Mapping[str, Any], where: str) -> Dialect:
    """Return the words of the entry's turns; with a `tags` block, only what it lists."""
    tags = entry.get("tags")
    if tags is not None and not isinstance(tags, dict):
        raise DataError("tags is not an object", where=where)
    words = _TAGS if tags is None else {**dict.fromkeys(_TAGS), **tags}
    role, content = (words.get(key) or _TAGS[key] for key in ("role_tag", "content_tag"))
    roles = {words[tag]: means for tag, means in _MEANS.items() if words.get(tag)}
    return Dialect(role, content, roles)


def _count(entry: Mapping[str, Any], where: str) -> int | None:
    count = entry.get("num_samples")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise DataError(f"num_samples is {count!r}", where=where, expected="a number from 1")
    return count
