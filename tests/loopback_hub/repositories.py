"""Endpoints of repositories as such: who am I, create, info, settings, delete, cards."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tests.loopback_hub.cards import faults_of_card, metadata_of
from tests.loopback_hub.gitids import pointer
from tests.loopback_hub.messages import Answer, Request, as_json, endpoint
from tests.loopback_hub.records import Repository, check_path
from tests.loopback_hub.refusals import Refused, bad_request

if TYPE_CHECKING:
    from tests.loopback_hub.hub import Hub
    from tests.loopback_hub.records import Kind

_NAME = 96  # characters of a repository's name, at most


@endpoint("GET", "/api/whoami-v2")
def whoami(request: Request) -> Answer:
    if request.who is None:
        raise Refused(401, "Invalid username or password.")
    token = request.who
    shown = {
        "displayName": token.name,
        "role": token.scope,
        "createdAt": "2026-01-01T00:00:00.000Z",
    }
    return as_json(
        {
            "type": "user",
            "id": hashlib.md5(token.user.encode(), usedforsecurity=False).hexdigest()[:24],
            "name": token.user,
            "fullname": token.user,
            "email": f"{token.user}@users.noreply.invalid",
            "emailVerified": True,
            "canPay": False,
            "isPro": False,
            "periodEnd": None,
            "avatarUrl": "",
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": shown},
        }
    )


@endpoint("POST", "/api/repos/create")
def create(request: Request) -> Answer:
    asked = request.json()
    token = request.must_write()
    kind = _kind(asked)
    name = f"{asked.get('organization') or token.user}/{asked.get('name')}"
    request.must_write(name.partition("/")[0])
    _check_name(name)
    private = _private(asked)
    if (kind, name) in request.hub.repositories:
        raise Refused(
            409,
            f"You already created this {kind} repo",
            body={"url": _url(request.hub, kind, name), "name": name},
        )
    made = request.hub.create(name, kind, private=bool(private))
    shown = {"url": _url(request.hub, kind, name), "name": name, "id": _id(made)}
    return as_json({**shown, "private": made.private})


@endpoint("DELETE", "/api/repos/delete")
def delete(request: Request) -> Answer:
    asked = request.json()
    owner = asked.get("organization") or request.user().user
    found = request.writable(f"{_kind(asked)}s", f"{owner}/{asked.get('name')}")
    request.hub.delete(found)
    return as_json({})


@endpoint("PUT", "/api/{kinds}/{repo}/settings")
def settings(request: Request, kinds: str, name: str) -> Answer:
    found = request.writable(kinds, name)
    asked = request.json()
    gated = asked.pop("gated", found.gated)
    if gated not in {False, "auto", "manual"}:
        raise bad_request(f"Invalid gated: {gated!r}")
    private = _private(asked)
    unknown = set(asked) - {"private", "visibility"}
    if unknown:
        raise bad_request(f"Unrecognized keys: {sorted(unknown)}")
    found.gated = gated
    found.private = found.private if private is None else private
    request.hub.save(found)
    return as_json({"private": found.private, "gated": found.gated})


@endpoint("GET", "/api/{kinds}/{repo}/revision/{rev}")
def revision_info(request: Request, kinds: str, name: str, rev: str) -> Answer:
    found = request.repository(kinds, name)
    commit = found.resolve(rev)
    blobs = request.query.get("blobs", "").lower() in {"true", "1"}
    tree = found.trees[commit.tree]
    card = metadata_of(request.hub.read(tree["README.md"])) if "README.md" in tree else None
    return as_json(
        {
            "_id": _id(found),
            "id": found.name,
            "author": found.owner,
            "sha": commit.id,
            "private": found.private,
            "gated": found.gated,
            "disabled": False,
            "createdAt": found.created,
            "lastModified": commit.date,
            "downloads": 0,
            "likes": 0,
            "tags": list((card or {}).get("tags") or []),
            "usedStorage": sum(found.uploaded.values()),
            "siblings": [_sibling(path, tree[path], blobs=blobs) for path in sorted(tree)],
            **({"modelId": found.name} if found.kind == "model" else {}),
            **({"cardData": card} if card else {}),
        }
    )


@endpoint("GET", "/api/{kinds}/{repo}")
def info(request: Request, kinds: str, name: str) -> Answer:
    return revision_info(request, kinds, name, "main")


@endpoint("POST", "/api/validate-yaml")
def validate_card(request: Request) -> Answer:
    asked = request.json()
    found = faults_of_card(str(asked.get("content", "")).encode())
    shown = {"errors": [{"message": one} for one in found], "warnings": []}
    if found:
        raise Refused(400, "Invalid metadata in README.md", body=shown)
    return as_json(shown)


def _sibling(path: str, entry: Any, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    shown = {"rfilename": path, "size": entry.size, "blobId": entry.oid}
    if entry.lfs:
        pointer_size = len(pointer(entry.sha256, entry.size))
        shown["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    return shown


def _private(asked: dict[str, Any]) -> bool | None:
    """What is asked of visibility, in either way that clients write it."""
    visibility, private = asked.get("visibility"), asked.get("private")
    if visibility not in {None, "private", "public"} or private not in {None, True, False}:
        raise bad_request(f"Invalid visibility: {visibility!r}, private: {private!r}")
    if visibility is not None:
        return bool(visibility == "private")
    return private


def _kind(asked: dict[str, Any]) -> Kind:
    kind = asked.get("type") or "model"
    if kind == "model":
        return "model"
    if kind == "dataset":
        return "dataset"
    raise bad_request(f"Invalid repo type: {kind!r}; this Hub has models and datasets")


def _check_name(name: str) -> None:
    check_path(name)
    own = name.partition("/")[2]
    fits = own.replace("-", "").replace("_", "").replace(".", "").isalnum() and own.isascii()
    if not fits or len(own) > _NAME or own[0] in "-." or own[-1] in "-." or ".." in own:
        raise bad_request(f"Invalid repo name: {own!r}")


def _url(hub: Hub, kind: Kind, name: str) -> str:
    return f"{hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"


def _id(found: Repository) -> str:
    text = f"{found.kind} {found.name} {found.created}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:24]
