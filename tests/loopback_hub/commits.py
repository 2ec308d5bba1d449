"""Endpoints that write files: preupload, and the commit that takes them all or none."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.loopback_hub.attributes import LARGE, is_large
from tests.loopback_hub.cards import faults_of_card
from tests.loopback_hub.events import open_request
from tests.loopback_hub.messages import Answer, Request, as_json, endpoint
from tests.loopback_hub.records import Repository, Tree, check_path
from tests.loopback_hub.refusals import Refused, bad_request, entry_not_found

if TYPE_CHECKING:
    from tests.loopback_hub.hub import Hub
    from tests.loopback_hub.records import Commit

_MOST_FILES = 256  # of one preupload request


@endpoint("POST", "/api/{kinds}/{repo}/preupload/{rev}")
def preupload(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = _writable(request, kinds, name)
    tree = found.tree(rev)
    asked = request.json()
    files = asked.get("files")
    if not isinstance(files, list) or len(files) > _MOST_FILES:
        raise bad_request(f"files must be an array of at most {_MOST_FILES}")
    attributes = asked.get("gitAttributes") or _attributes(request.hub, tree)
    shown = []
    for file in files:
        path, size, sample = _announced(file)
        large = is_large(path, size, sample, attributes)
        shown.append(
            {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                "oid": _known(tree, path),
            }
        )
    return as_json({"files": shown})


@endpoint("POST", "/api/{kinds}/{repo}/commit/{rev}")
def commit(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = _writable(request, kinds, name)
    author = request.user().user
    head = found.resolve(rev)
    asked = _parse(request.body())
    if request.query.get("create_pr") == "1":
        base = found.resolve(asked.parent) if asked.parent else head
        made = _commit(request.hub, found, base, asked, author)
        opened = open_request(found, asked.title, asked.message, author, made.id, "open")
        request.hub.save(found)
        extra = {"pullRequestUrl": f"{_web(request, found)}/discussions/{opened.num}"}
    else:
        if asked.parent is not None and asked.parent != head.id:
            message = "A commit has happened since. Please refresh and try again."
            raise Refused(412, message)
        found.move(rev, head.id)  # refuses what is no branch before anything is kept
        made = _commit(request.hub, found, head, asked, author)
        found.move(rev, made.id)
        request.hub.save(found)
        extra = {}
    where = f"{_web(request, found)}/commit/{made.id}"
    return as_json(
        {"success": True, "commitOid": made.id, "commitUrl": where, "hookOutput": "", **extra}
    )


@dataclass(slots=True)
class _Asked:
    """A commit as it was sent: its header, and its operations in order."""

    title: str
    message: str
    parent: str | None
    operations: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def _writable(request: Request, kinds: str, name: str) -> Repository:
    """A repository to write to, or, for a pull request, one that may be read."""
    if request.query.get("create_pr") == "1":
        found = request.repository(kinds, name)
        request.must_write()
        return found
    return request.writable(kinds, name)


def _parse(body: bytes) -> _Asked:
    """Read the lines of a commit.

    Raises:
        Refused: 400 for anything that isn't as documented.
    """
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        pairs = [(line["key"], dict(line["value"])) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise bad_request(f"Invalid commit payload: {error}") from error
    if not pairs or pairs[0][0] != "header" or any(key == "header" for key, _ in pairs[1:]):
        raise bad_request("Invalid commit payload: the header must come first, once")
    header = pairs[0][1]
    title = header.get("summary")
    if not isinstance(title, str) or not title.strip():
        raise bad_request("Invalid commit payload: a summary is required")
    parent = header.get("parentCommit")
    return _Asked(title, str(header.get("description") or ""), parent, pairs[1:])


def _commit(hub: Hub, found: Repository, base: Commit, asked: _Asked, author: str) -> Commit:
    tree = dict(found.trees[base.tree])
    for key, value in asked.operations:
        path = check_path(str(value.get("path", "")).removesuffix("/"))
        if key == "file":
            _add_regular(hub, tree, path, value)
        elif key == "lfsFile":
            _add_large(hub, found, tree, path, value)
        elif key == "deletedFile":
            if tree.pop(path, None) is None:
                raise _no_such_file(path)
        elif key == "deletedFolder":
            inside = [one for one in tree if one.startswith(f"{path}/")]
            if not inside:
                raise _no_such_file(path)
            for one in inside:
                del tree[one]
        else:
            raise bad_request(f"Invalid commit payload: unknown key {key!r}")
    _check_tree(tree)
    return found.add_commit(tree, [base.id], asked.title, asked.message, author)


def _add_regular(hub: Hub, tree: Tree, path: str, value: dict[str, Any]) -> None:
    if value.get("encoding", "utf-8") == "base64":
        try:
            content = base64.b64decode(value.get("content", ""), validate=True)
        except (binascii.Error, TypeError) as error:
            raise bad_request(f"{path}: invalid base64") from error
    else:
        content = str(value.get("content", "")).encode()
    if len(content) > LARGE:
        raise bad_request(f"{path}: files larger than {LARGE} bytes must be LFS files")
    if is_large(path, len(content), content[:512], _attributes(hub, tree)):
        raise bad_request(f"{path}: this file must be an LFS file")
    if path == "README.md" and (faults := faults_of_card(content)):
        raise bad_request(f"Invalid metadata in README.md: {'; '.join(faults)}")
    tree[path] = hub.entry(content, lfs=False)


def _add_large(hub: Hub, found: Repository, tree: Tree, path: str, value: dict[str, Any]) -> None:
    """Point to bytes that are there: uploaded to this very repository, and of that size."""
    oid, size = value.get("oid"), value.get("size")
    if value.get("algo") != "sha256" or not isinstance(oid, str):
        raise bad_request(f"{path}: an LFS file has algo sha256 and an oid")
    if oid not in found.uploaded:
        raise bad_request(f"{path}: LFS pointer points to an object that doesn't exist: {oid}")
    if size is not None and size != found.uploaded[oid]:
        raise bad_request(f"{path}: size {size} differs from the uploaded {found.uploaded[oid]}")
    tree[path] = hub.entry_of(oid, found.uploaded[oid], lfs=True)


def _check_tree(tree: Tree) -> None:
    for path in tree:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in tree:
                raise bad_request(f"{path}: a file stands where a folder would be")


def _announced(file: Any) -> tuple[str, int, bytes]:
    try:
        path, size = check_path(file["path"]), int(file["size"])
        return path, size, base64.b64decode(file.get("sample") or "", validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request(f"Invalid file in preupload: {error}") from error


def _known(tree: Tree, path: str) -> str | None:
    """What the client compares its own file with, to leave out what hasn't changed."""
    if path not in tree:
        return None
    return tree[path].sha256 if tree[path].lfs else tree[path].oid


def _attributes(hub: Hub, tree: Tree) -> str:
    kept = tree.get(".gitattributes")
    return hub.read(kept).decode() if kept else ""


def _no_such_file(path: str) -> Refused:
    error = entry_not_found(path)
    return Refused(404, f"A file with this name doesn't exist: {path}", error.code)


def _web(request: Request, found: Repository) -> str:
    prefix = "datasets/" if found.kind == "dataset" else ""
    return f"{request.hub.endpoint}/{prefix}{found.name}"
