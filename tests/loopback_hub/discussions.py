"""Endpoints of discussions and pull requests: open, comment, close, merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.loopback_hub.events import comment_event, event, open_request
from tests.loopback_hub.messages import Answer, Request, as_json, endpoint
from tests.loopback_hub.records import Discussion, Repository, Tree, stamp
from tests.loopback_hub.refusals import Refused, bad_request

if TYPE_CHECKING:
    from tests.loopback_hub.records import Commit

_PAGE = 10  # discussions on one page


@endpoint("GET", "/api/{kinds}/{repo}/discussions")
def discussions(request: Request, kinds: str, name: str) -> Answer:
    found = request.repository(kinds, name)
    wanted = request.query.get("type", "all")
    status = request.query.get("status", "all")
    shown = [
        _summary(found, one)
        for one in reversed(found.discussions)
        if wanted == "all" or one.pull_request == (wanted == "pull_request")
        if status == "all" or (one.status in {"open", "draft"}) == (status == "open")
    ]
    start = int(request.query.get("p", "0")) * _PAGE
    page = shown[start : start + _PAGE]
    return as_json({"discussions": page, "count": len(shown), "start": start})


@endpoint("POST", "/api/{kinds}/{repo}/discussions")
def open_one(request: Request, kinds: str, name: str) -> Answer:
    """Open one; a pull request starts as a draft, at the commit that `main` is at."""
    found = request.repository(kinds, name)
    author = request.must_write().user
    asked = request.json()
    title, text = asked.get("title"), str(asked.get("description") or "")
    if not isinstance(title, str) or not title.strip():
        raise bad_request("A title is required")
    if asked.get("pullRequest"):
        opened = open_request(found, title, text, author, found.branches["main"], "draft")
    else:
        opened = Discussion(
            num=len(found.discussions) + 1,
            title=title,
            author=author,
            created=stamp(),
            status="open",
            pull_request=False,
            events=[comment_event(author, text)],
        )
        found.discussions.append(opened)
    request.hub.save(found)
    return as_json({"num": opened.num, "pullRequest": opened.pull_request})


@endpoint("GET", "/api/{kinds}/{repo}/discussions/{num}")
def details(request: Request, kinds: str, name: str, num: str) -> Answer:
    found = request.repository(kinds, name)
    one = _discussion(found, num)
    shown = {**_summary(found, one), "events": _events(found, one)}
    if one.pull_request:
        changes = {"base": "refs/heads/main", "mergeCommitId": one.merged}
        conflicts = _merged_tree(found, one)[1] if one.merged is None else []
        shown |= {"changes": changes, "filesWithConflicts": conflicts, "diff": ""}
    return as_json(shown)


@endpoint("POST", "/api/{kinds}/{repo}/discussions/{num}/comment")
def comment(request: Request, kinds: str, name: str, num: str) -> Answer:
    found = request.repository(kinds, name)
    one = _discussion(found, num)
    made = comment_event(request.must_write().user, str(request.json().get("comment") or ""))
    one.events.append(made)
    request.hub.save(found)
    return as_json({"newMessage": made})


@endpoint("POST", "/api/{kinds}/{repo}/discussions/{num}/status")
def change_status(request: Request, kinds: str, name: str, num: str) -> Answer:
    found = request.writable(kinds, name)
    one = _discussion(found, num)
    asked = request.json()
    if one.status == "merged":
        raise bad_request("This pull request is merged")
    if asked.get("status") not in {"open", "closed"}:
        raise bad_request(f"Invalid status: {asked.get('status')!r}")
    one.status = "open" if asked["status"] == "open" else "closed"
    made = event("status-change", request.user().user, {"status": one.status})
    one.events.append(made)
    request.hub.save(found)
    return as_json({"newStatus": made})


@endpoint("POST", "/api/{kinds}/{repo}/discussions/{num}/merge")
def merge(request: Request, kinds: str, name: str, num: str) -> Answer:
    """Move `main` once: to one commit with all that the pull request changed."""
    found = request.writable(kinds, name)
    one = _discussion(found, num)
    if not one.pull_request or one.status != "open":
        raise bad_request(f"This cannot be merged: it is {one.status}")
    tree, conflicts = _merged_tree(found, one)
    if conflicts:
        raise Refused(409, f"This pull request has conflicts: {', '.join(conflicts)}")
    told = "".join(f"- {each.title} ({each.id})\n" for each in _commits(found, one))
    author = request.user().user
    title = f"{one.title} (#{one.num})"
    made = found.add_commit(tree, [found.branches["main"]], title, told, author)
    found.branches["main"] = one.merged = made.id
    one.status = "merged"
    one.events.append(event("status-change", author, {"status": "merged"}))
    request.hub.save(found)
    return as_json({"mergeCommitId": made.id})


def _discussion(found: Repository, num: str) -> Discussion:
    one = found.discussion(int(num))
    if one is None:
        raise Refused(404, f"No discussion {num}")
    return one


def _commits(found: Repository, one: Discussion) -> list[Commit]:
    """The request's own commits, oldest first."""
    assert one.head is not None
    base = _fork(found, one)
    own = []
    for each in found.history(one.head):
        if each.id == base.id:
            break
        own.append(each)
    return own[::-1]


def _fork(found: Repository, one: Discussion) -> Commit:
    """The last commit that `main` and the request have in common."""
    assert one.head is not None
    on_main = {each.id for each in found.history("main")}
    common = (each for each in found.history(one.head) if each.id in on_main)
    return next(common, found.history(one.head)[-1])


def _merged_tree(found: Repository, one: Discussion) -> tuple[Tree, list[str]]:
    """`main` with the request's changes, and the paths that both changed differently."""
    assert one.head is not None
    base, theirs, main = (
        found.trees[each.tree]
        for each in (_fork(found, one), found.commits[one.head], found.resolve("main"))
    )
    tree, conflicts = dict(main), []
    for path in sorted({*base, *theirs}):
        before, wanted, now = base.get(path), theirs.get(path), main.get(path)
        if wanted in (before, now):
            continue
        if now != before:
            conflicts.append(path)
        elif wanted is None:
            del tree[path]
        else:
            tree[path] = wanted
    return tree, conflicts


def _summary(found: Repository, one: Discussion) -> dict[str, Any]:
    return {
        "num": one.num,
        "title": one.title,
        "author": {"name": one.author},
        "createdAt": one.created,
        "status": one.status,
        "isPullRequest": one.pull_request,
        "repo": {"name": found.name, "type": found.kind},
    }


def _events(found: Repository, one: Discussion) -> list[dict[str, Any]]:
    if not one.pull_request:
        return one.events
    made = []
    for each in _commits(found, one):
        told = event("commit", each.author, {"subject": each.title, "oid": each.id})
        made.append({**told, "id": each.id, "createdAt": each.date})
    return [*one.events, *made]
