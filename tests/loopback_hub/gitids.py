"""Git's own ids: of a blob, an LFS pointer, a tree of folders and a commit."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def blob_id(content: bytes) -> str:
    return _object_id("blob", content)


def pointer(sha256: str, size: int) -> bytes:
    """Return the text that git keeps in place of an LFS file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    ).encode()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Return the tree id of every folder ("" is the root) of files given as path to blob id."""
    folders: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, oid in blobs.items():
        folder, _, name = path.rpartition("/")
        _open(folders, folder)[name] = ("100644", oid)
    ids: dict[str, str] = {}
    for folder in sorted(folders, key=lambda name: -len(name)):  # a child before its parent
        ids[folder] = _tree_id(folders[folder])
        if folder:
            parent, _, name = folder.rpartition("/")
            folders[parent][name] = ("40000", ids[folder])
    return ids


def commit_id(tree: str, parents: list[str], author: str, seconds: int, message: str) -> str:
    who = f"{author} <{author}@users.noreply.invalid> {seconds} +0000"
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    text = "\n".join([*lines, f"author {who}", f"committer {who}", "", message])
    return _object_id("commit", text.encode())


def _open(
    folders: dict[str, dict[str, tuple[str, str]]], folder: str
) -> dict[str, tuple[str, str]]:
    if folder not in folders:
        folders[folder] = {}
        _open(folders, folder.rpartition("/")[0])
    return folders[folder]


def _tree_id(entries: Mapping[str, tuple[str, str]]) -> str:
    def in_git_order(name: str) -> str:  # a folder sorts as if its name ended in a slash
        return name + "/" if entries[name][0] == "40000" else name

    body = b"".join(
        f"{entries[name][0]} {name}".encode() + b"\0" + bytes.fromhex(entries[name][1])
        for name in sorted(entries, key=in_git_order)
    )
    return _object_id("tree", body)


def _object_id(kind: str, body: bytes) -> str:
    head = f"{kind} {len(body)}".encode() + b"\0"
    return hashlib.sha1(head + body, usedforsecurity=False).hexdigest()
