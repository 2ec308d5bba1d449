"""Large files going up: the batch endpoint, whole or in parts, completion and verification.

Nothing counts as uploaded before its bytes are here, hashed, and of the size that was announced.
An address to upload to is good for one object of one repository; knowing it is the permission,
as with the storage's signed addresses.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from typing import TYPE_CHECKING, Any

from tests.loopback_hub.messages import Answer, Request, as_json, endpoint
from tests.loopback_hub.refusals import Refused, bad_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.loopback_hub.hub import Hub
    from tests.loopback_hub.records import Repository

IN_PARTS = 10_000_000  # bytes: a larger object is uploaded in parts
PART = 5 << 20  # bytes of each part but the last
_OID = re.compile(r"[0-9a-f]{64}")


@endpoint("POST", "/{of}{repo}\\.git/info/lfs/objects/batch")
def batch(request: Request, kinds: str, name: str) -> Answer:
    asked = request.json()
    found = request.repository(kinds, name)
    # A pull request's commits may come from anyone with a write token; they name no ref.
    request.must_write(found.owner if asked.get("ref") else None)
    objects, transfers = asked.get("objects"), asked.get("transfers", ["basic"])
    if asked.get("operation") != "upload" or not isinstance(objects, list):
        raise bad_request("Invalid LFS batch: expected an upload of objects")
    offered = ("xet", "multipart") if request.hub.xet else ("multipart",)
    transfer = next((one for one in offered if one in transfers), "basic")
    shown = [_instruction(request.hub, found, one, transfer) for one in objects]
    return as_json({"transfer": transfer, "objects": shown})


@endpoint("PUT", "/upload/{id}(?:/(?P<number>\\d{5}))?", storage=True, streams=True)
def put(request: Request, id: str, number: str) -> Answer:  # noqa: A002 - as in the address
    folder, asked = _upload(request.hub, id)
    if "Authorization" in request.headers:
        raise bad_request("Only one auth mechanism allowed")
    if request.length is None:
        raise Refused(411, "Length Required")
    parts = math.ceil(asked["size"] / PART) if asked["parts"] else 1
    if bool(number) != asked["parts"] or (number and not 1 <= int(number) <= parts):
        raise bad_request("Invalid part number")
    size = asked["size"]
    if number:
        size = PART if int(number) < parts else size - PART * (parts - 1)
    draft, whole, md5 = _receive(request, size)
    if number:
        draft.replace(folder / number)
    else:
        _accept(request.hub, asked, draft, whole)
    return Answer(headers={"ETag": f'"{md5}"'})


@endpoint("POST", "/api/complete-multipart/{id}")
def complete(request: Request, id: str) -> Answer:  # noqa: A002 - as in the address
    folder, asked = _upload(request.hub, id)
    told = request.json()
    numbers = [f"{n:05d}" for n in range(1, math.ceil(asked["size"] / PART) + 1)]
    expected = [
        {"partNumber": int(one), "etag": f'"{_md5(folder / one)}"'}
        for one in numbers
        if (folder / one).exists()
    ]
    if len(expected) < len(numbers) or told.get("parts") != expected:
        raise bad_request("One or more of the specified parts could not be found")
    if told.get("oid") != asked["oid"]:
        raise bad_request("This upload is of another object")
    draft, whole = request.hub.draft(), hashlib.sha256()
    with draft.open("wb") as file:
        for one in numbers:
            piece = (folder / one).read_bytes()
            whole.update(piece)
            file.write(piece)
    _accept(request.hub, asked, draft, whole.hexdigest())
    for one in numbers:
        (folder / one).unlink()
    return as_json({"success": True})


@endpoint("POST", "/{of}{repo}\\.git/info/lfs/objects/verify")
def verify(request: Request, kinds: str, name: str) -> Answer:
    found = request.repository(kinds, name)
    request.must_write()
    oid, size = _named(request.json())
    if oid not in found.uploaded:
        raise Refused(404, f"Object {oid} does not exist")
    if found.uploaded[oid] != size:
        raise Refused(422, f"Object {oid} has {found.uploaded[oid]} bytes, not {size}")
    return as_json({})


def keep(hub: Hub, found: Repository, draft: Path, oid: str, size: int) -> None:
    """Make a received file, whose hash was compared, one of a repository's large objects."""
    with hub.lock:
        draft.replace(hub.blob(oid))
        found.uploaded[oid] = size
        hub.save(found)


def _instruction(hub: Hub, found: Repository, one: Any, transfer: str) -> dict[str, Any]:
    oid, size = _named(one)
    told: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    if oid in found.uploaded:
        return told  # already there: nothing to do
    prefix = "datasets/" if found.kind == "dataset" else ""
    if transfer == "xet":
        where = f"{hub.endpoint}/api/{found.kind}s/{found.name}/xet-write-token/main"
        return {**told, "actions": {"upload": {"href": where, "header": {}}}}
    parts = size > IN_PARTS and transfer == "multipart"
    name = secrets.token_hex(16)
    asked = {"repo": found.name, "kind": found.kind, "oid": oid, "size": size, "parts": parts}
    (hub.root / "uploads" / name).mkdir()
    hub.replace(hub.root / "uploads" / name / "asked.json", json.dumps(asked).encode())
    where = f"{hub.storage}/upload/{name}"
    upload: dict[str, Any] = {"href": where}
    if parts:
        numbers = [f"{n:05d}" for n in range(1, math.ceil(size / PART) + 1)]
        header = {"chunk_size": str(PART), **{n: f"{where}/{n}" for n in numbers}}
        upload = {"href": f"{hub.endpoint}/api/complete-multipart/{name}", "header": header}
    check = {"href": f"{hub.endpoint}/{prefix}{found.name}.git/info/lfs/objects/verify"}
    return {**told, "actions": {"upload": upload, "verify": check}}


def _named(one: Any) -> tuple[str, int]:
    oid, size = (one.get("oid"), one.get("size")) if isinstance(one, dict) else (None, None)
    if not isinstance(oid, str) or not _OID.fullmatch(oid):
        raise Refused(422, f"Invalid oid: {oid!r}")
    if not isinstance(size, int) or size <= 0:
        raise Refused(422, f"Invalid size: {size!r}")
    return oid, size


def _upload(hub: Hub, name: str) -> tuple[Path, dict[str, Any]]:
    folder = hub.root / "uploads" / name
    if not (folder / "asked.json").exists():
        raise Refused(403, "Request has expired, or its signature does not match")
    return folder, json.loads((folder / "asked.json").read_bytes())


def _receive(request: Request, size: int) -> tuple[Path, str, str]:
    """Write the body to a draft; return it with its SHA-256 and MD5."""
    if request.length != size:
        raise bad_request(f"Expected {size} bytes, Content-Length is {request.length}")
    draft, sha256, md5 = request.hub.draft(), hashlib.sha256(), _new_md5()
    try:
        with draft.open("wb") as file:
            for piece in request.pieces():
                sha256.update(piece)
                md5.update(piece)
                file.write(piece)
    except OSError:
        draft.unlink()
        raise
    return draft, sha256.hexdigest(), md5.hexdigest()


def _accept(hub: Hub, asked: dict[str, Any], draft: Path, sha256: str) -> None:
    """Keep what was received if it is what was announced."""
    if sha256 != asked["oid"]:
        draft.unlink()
        message = f"The bytes have the SHA-256 {sha256}, not {asked['oid']}"
        raise bad_request(message)
    found = hub.repositories.get((asked["kind"], asked["repo"]))
    if found is None:
        draft.unlink()
        raise Refused(404, "The repository is gone", "RepoNotFound")
    keep(hub, found, draft, asked["oid"], asked["size"])


def _md5(path: Path) -> str:
    made = _new_md5()
    made.update(path.read_bytes())
    return made.hexdigest()


def _new_md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
