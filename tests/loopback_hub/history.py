"""Endpoints that read a repository's trees, refs and commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from tests.loopback_hub import gitids
from tests.loopback_hub.messages import Answer, Request, as_json, endpoint
from tests.loopback_hub.refusals import Refused, bad_request, entry_not_found

if TYPE_CHECKING:
    from tests.loopback_hub.records import Commit, Repository, Tree

_MOST_PATHS = 1000  # of one paths-info request


@endpoint("GET", "/api/{kinds}/{repo}/tree/{rev}(?:/{path})?")
def tree(request: Request, kinds: str, name: str, rev: str, path: str) -> Answer:
    found = request.repository(kinds, name)
    commit = found.resolve(rev)
    folder = path.strip("/")
    prefix = f"{folder}/" if folder else ""
    files = {one: e for one, e in found.trees[commit.tree].items() if one.startswith(prefix)}
    if folder and not files:
        raise entry_not_found(folder, commit.id)
    recursive, expand = (request.query.get(key, "") for key in ("recursive", "expand"))
    entries = _entries(found, commit, expand=expand.lower() == "true")
    shown = [
        entry
        for one, entry in entries.items()
        if one.startswith(prefix) and (recursive.lower() == "true" or "/" not in one[len(prefix) :])
    ]
    return _page(request, shown)


@endpoint("POST", "/api/{kinds}/{repo}/paths-info/{rev}")
def paths_info(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = request.repository(kinds, name)
    commit = found.resolve(rev)
    if "json" in request.headers.get("Content-Type", ""):
        asked = request.json()
        paths, expand = asked.get("paths", []), bool(asked.get("expand"))
    else:
        form = parse_qs(request.body().decode(), keep_blank_values=True)
        paths, expand = form.get("paths", []), form.get("expand", [""])[-1].lower() == "true"
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise bad_request("paths must be an array of strings")
    if len(paths) > _MOST_PATHS:
        raise Refused(413, "too many parameters")
    entries = _entries(found, commit, expand=expand)
    return as_json([entries[path] for path in paths if path in entries])


@endpoint("GET", "/api/{kinds}/{repo}/refs")
def refs(request: Request, kinds: str, name: str) -> Answer:
    found = request.repository(kinds, name)

    def shown(name: str, ref: str, commit: str | None) -> dict[str, str | None]:
        return {"name": name, "ref": ref, "targetCommit": commit}

    requests = [one for one in found.discussions if one.pull_request]
    return as_json(
        {
            "branches": [shown(n, f"refs/heads/{n}", c) for n, c in found.branches.items()],
            "converts": [],
            "tags": [shown(n, f"refs/tags/{n}", tag.commit) for n, tag in found.tags.items()],
            **(
                {"pullRequests": [shown(str(o.num), f"refs/pr/{o.num}", o.head) for o in requests]}
                if request.query.get("include_prs")
                else {}
            ),
        }
    )


@endpoint("GET", "/api/{kinds}/{repo}/commits/{rev}")
def commits(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = request.repository(kinds, name)
    shown = [
        {
            "id": one.id,
            "title": one.title,
            "message": one.message,
            "authors": [{"user": one.author, "avatar": ""}],
            "date": one.date,
        }
        for one in found.history(rev)
    ]
    return _page(request, shown)


def _entries(found: Repository, commit: Commit, *, expand: bool) -> dict[str, dict[str, Any]]:
    """Every file and folder of a commit by its path, in order."""
    files = found.trees[commit.tree]
    blobs = {path: entry.oid for path, entry in files.items()}
    shown: dict[str, dict[str, Any]] = {}
    for folder, oid in gitids.tree_ids(blobs).items():
        if folder:
            shown[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
    for path, entry in files.items():
        shown[path] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
        if entry.lfs:
            size = len(gitids.pointer(entry.sha256, entry.size))
            large = {"oid": entry.sha256, "size": entry.size, "pointerSize": size}
            shown[path]["lfs"] = large
            if xet_hash := found.xet_hash(entry.sha256):
                shown[path]["xetHash"] = xet_hash
    if expand:
        last = _last_commits(found, commit, files)
        for path, entry_shown in shown.items():
            if path in last:
                one = last[path]
                told = {"id": one.id, "title": one.title, "date": one.date}
                entry_shown["lastCommit"] = told
    return dict(sorted(shown.items()))


def _last_commits(found: Repository, commit: Commit, files: Tree) -> dict[str, Commit]:
    """For each file, the commit that last changed it."""
    last = dict.fromkeys(files, commit)
    for one in found.history(commit.id):
        tree = found.trees[one.tree]
        for path, entry in files.items():
            newer = last[path]
            before = newer.parents and found.trees[found.commits[newer.parents[0]].tree].get(path)
            if before == entry and one.id in newer.parents and tree.get(path) == entry:
                last[path] = one
    return last


def _page(request: Request, items: list[dict[str, Any]]) -> Answer:
    """One page, and in `Link` the address of the next."""
    query = request.query
    start = query.get("cursor", "0")
    limit = query.get("limit", str(request.hub.page_size))
    if not start.isdigit() or not limit.isdigit() or int(limit) == 0:
        raise bad_request("Invalid cursor or limit")
    end = int(start) + min(int(limit), request.hub.page_size)
    answer = as_json(items[int(start) : end], X_Total_Count=str(len(items)))
    if end >= len(items):
        return answer
    following = urlencode({**query, "cursor": end})
    link = f'<{request.hub.endpoint}{request.path}?{following}>; rel="next"'
    return Answer(answer.body, 200, {**answer.headers, "Link": link})
