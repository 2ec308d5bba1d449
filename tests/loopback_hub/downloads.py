"""Files going down: resolve and raw on the Hub, large ones by redirect from the storage."""

from __future__ import annotations

import hmac
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.loopback_hub.gitids import pointer
from tests.loopback_hub.messages import Answer, Request, endpoint
from tests.loopback_hub.refusals import Refused, bad_request, entry_not_found

if TYPE_CHECKING:
    from tests.loopback_hub.hub import Hub
    from tests.loopback_hub.records import Commit, Entry, Repository

_EXPIRES = 3600  # seconds that a signed address is good for


@endpoint("GET", "/{of}{repo}/resolve/{rev}/{path}")
def resolve(request: Request, kinds: str, name: str, rev: str, path: str) -> Answer:
    found, commit, entry = _find(request, kinds, name, rev, path)
    named = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    if not entry.lfs:
        return _file(request, entry, {**named, "ETag": f'"{entry.oid}"'})
    named |= {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    named |= _xet_headers(request.hub, found, commit, entry)
    accepted = request.headers.get("Accept", "")
    if "X-Xet-Hash" in named and "application/vnd.xet-fileinfo+json" in accepted:
        return Answer(b"{}", 200, {**named, "Content-Type": "application/vnd.xet-fileinfo+json"})
    return Answer(b"", 302, {**named, "Location": _signed(request.hub, entry.sha256, path)})


@endpoint("GET", "/{of}{repo}/raw/{rev}/{path}")
def raw(request: Request, kinds: str, name: str, rev: str, path: str) -> Answer:
    """A file as git has it: of a large one, the pointer."""
    _, commit, entry = _find(request, kinds, name, rev, path)
    named = {"X-Repo-Commit": commit.id, "ETag": f'"{entry.oid}"'}
    if entry.lfs:
        return Answer(pointer(entry.sha256, entry.size), 200, named)
    return _file(request, entry, named)


@endpoint("GET", "/cdn/{id}", storage=True, streams=True)
def from_storage(request: Request, id: str) -> Answer:  # noqa: A002 - as in the address
    check_signed(request, id)
    content = request.hub.blob(id)
    named = {"ETag": f'"{id}"', "Accept-Ranges": "bytes"}
    named["Content-Disposition"] = f'inline; filename="{request.query.get("filename", "")}";'
    return ranged(request, Answer(b"", 200, named, content, 0, content.stat().st_size))


def _xet_headers(hub: Hub, found: Repository, commit: Commit, entry: Entry) -> dict[str, str]:
    """Where a file that came by xet can be had by it; other files have the redirect alone."""
    name = found.xet_hash(entry.sha256)
    if name is None or not hub.xet:
        return {}
    token = f"{hub.endpoint}/api/{found.kind}s/{found.name}/xet-read-token/{commit.id}"
    info = f"{hub.storage}/v1/reconstructions/{name}"
    links = f'<{token}>; rel="xet-auth", <{info}>; rel="xet-reconstruction-info"'
    return {"X-Xet-Hash": name, "Link": links}


def ranged(request: Request, whole: Answer) -> Answer:
    """Return what the `Range` header asks of a whole file, or all of it without one.

    Raises:
        Refused: 416 where the range begins after the end.
    """
    asked = request.headers.get("Range")
    if asked is None:
        return whole
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if found is None or not (found[1] or found[2]):
        return whole  # several ranges or nonsense: answered in full
    size = whole.length
    first = int(found[1]) if found[1] else max(0, size - int(found[2]))
    last = min(int(found[2]), size - 1) if found[1] and found[2] else size - 1
    if first >= size or last < first:
        raise Refused(416, "Range Not Satisfiable", None, {"Content-Range": f"bytes */{size}"})
    named = {**whole.headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    return Answer(b"", 206, named, whole.file, first, last - first + 1)


def _file(request: Request, entry: Entry, named: dict[str, str]) -> Answer:
    if request.headers.get("If-None-Match") == named["ETag"]:
        return Answer(b"", 304, named)
    whole = Answer(b"", 200, named, request.hub.blob(entry.sha256), 0, entry.size)
    return ranged(request, whole)


def _find(
    request: Request, kinds: str, name: str, rev: str, path: str
) -> tuple[Repository, Commit, Entry]:
    found = request.repository(kinds, name)
    if found.gated and not request.owns(found):
        message = f"Access to {found.kind} {found.name} is restricted."
        raise Refused(403 if request.who else 401, message, "GatedRepo")
    commit = found.resolve(rev)
    entry = found.trees[commit.tree].get(path)
    if entry is None:
        raise entry_not_found(path, commit.id)
    return found, commit, entry


def _signed(hub: Hub, sha256: str, path: str) -> str:
    """Return an address on the storage that is good for an hour, to whoever has it."""
    query = {**signed_query(hub, sha256), "filename": path.rpartition("/")[2]}
    return f"{hub.storage}/cdn/{sha256}?{urlencode(query)}"


def signed_query(hub: Hub, name: str) -> dict[str, str]:
    expires = str(int(time.time()) + _EXPIRES)
    return {"Expires": expires, "Signature": hub.signature(f"{name} {expires}")}


def check_signed(request: Request, name: str) -> None:
    """Check an address that `signed_query` made.

    Raises:
        Refused: 403 where it is forged or expired, 400 for a token beside it.
    """
    if "Authorization" in request.headers:
        raise bad_request("Only one auth mechanism allowed")
    expires, signature = (request.query.get(key, "") for key in ("Expires", "Signature"))
    if not hmac.compare_digest(signature, request.hub.signature(f"{name} {expires}")):
        raise Refused(403, "The signature does not match")
    if int(expires) < time.time():
        raise Refused(403, "Request has expired")
