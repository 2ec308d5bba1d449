"""The splits of a Hub's dataset: which files hold which, by its card or by their names."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from registry.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DATA = re.compile(r"\.(parquet|(jsonl|json|csv)(\.gz|\.zst)?)$", re.IGNORECASE)
"""The names of files that are fetched; a dataset's script, and whatever else there is, is not."""

_ABOUT = ("dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json")
_SHARD = re.compile(r"(?:^|/)([^/]+)-\d{5}-of-\d{5}\.")  # the Hub's own name for a split's file
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}  # by which the Hub itself finds splits in names


def choose(
    names: Iterable[str],
    card: Mapping[str, Any],
    subset: str | None,
    folder: str | None,
    splits: Mapping[str, str],
    where: str,
) -> dict[str, list[str]]:
    """Return the files of each of our splits, sorted by name.

    Args:
        names: every file of the repository.
        card: the metadata of its README.
        subset: which of the card's `configs`, or a folder; None for the default one.
        folder: only files in this folder.
        splits: our split -> theirs.
        where: the repository, for messages.

    Raises:
        UserError: no data files, or no such subset or split.
    """
    data = _data(names, where)
    if folder is not None:
        data = [name for name in data if name.startswith(f"{folder.strip('/')}/")]
    listed = card.get("configs")
    configs = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    if configs:
        theirs = _by_config(data, _config(configs, subset, where), where)
    else:
        theirs = _by_name(data, subset, where)
    chosen = {}
    for ours, wanted in splits.items():
        if not theirs.get(wanted):
            has = ", ".join(split for split, files in theirs.items() if files) or "none"
            raise HubError(f"no split '{wanted}'", where, expected=f"one of its splits: {has}")
        chosen[ours] = sorted(theirs[wanted])
    return chosen


def _data(names: Iterable[str], where: str) -> list[str]:
    names = list(names)
    data = [
        name
        for name in names
        if DATA.search(name)
        and name.rpartition("/")[2] not in _ABOUT
        and not any(part.startswith(".") for part in name.split("/"))
    ]
    if not data:
        scripts = [name for name in names if name.endswith(".py")]
        raise HubError(
            f"its rows are made by a script ({scripts[0]}), and a dataset's script is never run"
            if scripts
            else "it has no data files",
            where,
            expected="files that end in .parquet, .jsonl, .json or .csv",
            fix="the Hub may have it as Parquet: revision: refs/convert/parquet"
            if scripts
            else None,
        )
    return data


def _config(
    configs: Sequence[Mapping[str, Any]], subset: str | None, where: str
) -> Mapping[str, Any]:
    named = {str(one.get("config_name", "default")): one for one in configs}
    if subset is not None:
        if subset not in named:
            raise HubError(f"no subset '{subset}'", where, expected=f"one of {', '.join(named)}")
        return named[subset]
    marked = [one for one in named.values() if one.get("default")]
    if marked or "default" in named or len(named) == 1:
        return (marked or [named.get("default") or next(iter(named.values()))])[0]
    raise HubError("several subsets", where, expected=f"subset: one of {', '.join(named)}")


def _by_config(data: Sequence[str], config: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """Return the files of each split as a config's `data_files` list them."""
    inside = str(config.get("data_dir") or "").strip("/")
    data = [name for name in data if not inside or name.startswith(f"{inside}/")]
    listed = config.get("data_files")
    if listed is None:
        return _sorted_out(data)
    if isinstance(listed, dict):
        listed = [{"split": split, "path": path} for split, path in listed.items()]
    entries = listed if isinstance(listed, list) else [listed]
    found: dict[str, list[str]] = {}
    for entry in entries:
        split, paths = ("train", entry)
        if isinstance(entry, dict):
            split, paths = str(entry.get("split", "train")), entry.get("path", ())
        patterns = [paths] if isinstance(paths, str) else paths
        if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
            raise HubError(f"its card's data_files name {paths!r}", where, "paths or patterns")
        for pattern in patterns:
            full = f"{inside}/{pattern}" if inside else pattern
            matched = [name for name in data if _matches(name, full)]
            found.setdefault(split, []).extend(n for n in matched if n not in found[split])
    return found


def _matches(name: str, pattern: str) -> bool:
    """Match as the Hub does: `*` stays inside a folder and `**` goes through any number."""
    mine, theirs = name.split("/"), pattern.removeprefix("./").split("/")
    return _parts_match(mine, theirs)


def _parts_match(name: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_parts_match(name[skip:], pattern[1:]) for skip in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _parts_match(name[1:], pattern[1:])


def _by_name(data: Sequence[str], subset: str | None, where: str) -> dict[str, list[str]]:
    """Return the files of each split by the words in their names; without any, all are train."""
    if subset is not None:
        inside = [name for name in data if name.startswith(f"{subset}/")]
        if not inside:
            folders = sorted({name.partition("/")[0] for name in data if "/" in name})
            raise HubError(
                f"no subset '{subset}'",
                where,
                f"one of its folders: {', '.join(folders) or 'none'}",
            )
        return _sorted_out([name.removeprefix(f"{subset}/") for name in inside], f"{subset}/")
    return _sorted_out(data)


def _sorted_out(names: Sequence[str], before: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    shards = {name: match[1] for name in names if (match := _SHARD.search(f"/{name}"))}
    for name, split in shards.items():
        found.setdefault(split, []).append(before + name)
    for name in () if found else names:
        words = re.split(r"[^a-z0-9]+", name.lower())
        for split, signs in _WORDS.items():
            if any(sign in words for sign in signs):
                found.setdefault(split, []).append(before + name)
                break
    return found or {"train": [before + name for name in names]}
