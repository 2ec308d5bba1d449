"""Endpoints that move names: branches, tags, and a branch's history made one commit."""

from __future__ import annotations

from tests.loopback_hub.messages import Answer, Request, as_json, endpoint
from tests.loopback_hub.records import Tag, check_ref
from tests.loopback_hub.refusals import Refused, revision_not_found


@endpoint("POST", "/api/{kinds}/{repo}/branch/{rev}")
def create_branch(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = request.writable(kinds, name)
    asked = request.json()
    start = asked.get("startingPoint")
    there = rev in found.branches
    if there and not asked.get("overwrite"):
        raise Refused(409, f"Reference already exists: refs/heads/{rev}")
    if asked.get("emptyBranch"):
        first = found.add_commit({}, [], "initial commit", "", request.user().user)
        found.branches[check_ref(rev)] = first.id
    elif not there or start is not None:  # overwrite without a starting point changes nothing
        found.branches[check_ref(rev)] = found.resolve(start or "main").id
    request.hub.save(found)
    return as_json({})


@endpoint("DELETE", "/api/{kinds}/{repo}/branch/{rev}")
def delete_branch(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = request.writable(kinds, name)
    if rev == "main":
        raise Refused(403, "Cannot delete the default branch")
    if rev not in found.branches:
        raise revision_not_found(rev)
    del found.branches[rev]
    request.hub.save(found)
    return as_json({})


@endpoint("POST", "/api/{kinds}/{repo}/tag/{rev}")
def create_tag(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = request.writable(kinds, name)
    asked = request.json()
    tag = check_ref(asked.get("tag"))
    if tag in found.tags:
        raise Refused(409, f"Reference already exists: refs/tags/{tag}")
    found.tags[tag] = Tag(commit=found.resolve(rev).id, message=str(asked.get("message") or ""))
    request.hub.save(found)
    return as_json({})


@endpoint("DELETE", "/api/{kinds}/{repo}/tag/{rev}")
def delete_tag(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = request.writable(kinds, name)
    if rev not in found.tags:
        raise revision_not_found(rev)
    del found.tags[rev]
    request.hub.save(found)
    return as_json({})


@endpoint("POST", "/api/{kinds}/{repo}/super-squash/{rev}")
def super_squash(request: Request, kinds: str, name: str, rev: str) -> Answer:
    """Make the branch one commit without parents; the old ones stay readable by their ids."""
    found = request.writable(kinds, name)
    head = found.resolve(rev)
    message = str(request.json().get("message") or f"Super-squash branch '{rev}'")
    found.move(rev, head.id)
    made = found.add_commit(found.trees[head.tree], [], message, "", request.user().user)
    found.move(rev, made.id)
    request.hub.save(found)
    return as_json({})
