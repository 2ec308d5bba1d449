"""Enough of xet's content-addressed storage: xorbs, shards, reconstructions, and their tokens.

A file comes as chunks packed into xorbs, and a shard that says which chunks make it up. It is put
together at once, compared with the SHA-256 that the shard names, and kept as an LFS object.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.loopback_hub import lz4
from tests.loopback_hub.downloads import check_signed, ranged, signed_query
from tests.loopback_hub.lfs import keep
from tests.loopback_hub.messages import Answer, Request, as_json, endpoint
from tests.loopback_hub.records import Segment, XetFile
from tests.loopback_hub.refusals import Refused, bad_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.loopback_hub.hub import Hub
    from tests.loopback_hub.records import Repository

_LIFE = 3600  # seconds of a xet token
_MAGIC = b"HFRepoMetaData\0\x55\x69\x67\x45\x6a\x7b\x81\x57\x83\xa5\xbd\xd9\x5c\xcd\xd1\x4a\xa9"
_RECORD = 48  # bytes of every record in a shard
_BOOKEND = b"\xff" * 32
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30


@endpoint("GET", "/api/{kinds}/{repo}/xet-(?P<scope>read|write)-token/{rev}")
def xet_token(request: Request, kinds: str, name: str, scope: str, rev: str) -> Answer:
    found = request.repository(kinds, name)
    if not request.hub.xet:
        raise Refused(404, "Xet is not enabled here")
    if scope == "write":
        pull_request = request.query.get("create_pr") == "1" or rev in {"None", ""}
        request.must_write(None if pull_request else found.owner)
    expires = int(time.time()) + _LIFE
    token = f"{scope}:{found.kind}:{found.name}:{expires}"
    token = f"{token}:{request.hub.signature(token)}"
    return as_json(
        {"accessToken": token, "exp": expires, "casUrl": request.hub.storage},
        X_Xet_Access_Token=token,
        X_Xet_Token_Expiration=str(expires),
        X_Xet_Cas_Url=request.hub.storage,
    )


@endpoint("POST", "/v1/xorbs/default/{id}", storage=True, streams=True)
def put_xorb(request: Request, id: str) -> Answer:  # noqa: A002 - as in the address
    _repository(request)
    body = request.body()
    _chunks(body)  # refuses what can't be unpacked
    path = request.hub.root / "xorbs" / id
    new = not path.exists()
    request.hub.replace(path, body)
    return as_json({"was_inserted": new})


@endpoint("POST", "/v1/shards|/shards", storage=True, streams=True)
def put_shard(request: Request) -> Answer:
    found = _repository(request)
    for name, made in _files(request.body()):
        draft, whole, size, sha256 = request.hub.draft(), hashlib.sha256(), 0, made.sha256
        with draft.open("wb") as file:
            for one in made.segments:
                piece = _segment(request.hub, one)
                if len(piece) != one.length:
                    raise bad_request(f"{name}: {len(piece)} bytes, the shard says {one.length}")
                whole.update(piece)
                size += len(piece)
                file.write(piece)
        if whole.hexdigest() != sha256:
            draft.unlink()
            raise bad_request(f"The bytes have the SHA-256 {whole.hexdigest()}, not {sha256}")
        found.xet[name] = made
        keep(request.hub, found, draft, sha256, size)
    return as_json({"result": 1})


@endpoint("GET", "/v1/chunks/[\\w-]+/{id}", storage=True)
def known_chunk(request: Request, id: str) -> Answer:  # noqa: A002 - as in the address
    """No chunk of another file is offered for reuse."""
    _repository(request)
    raise Refused(404, f"No shard has the chunk {id}")


@endpoint("GET", "/v2/reconstructions/{id}", storage=True)
def reconstruction(request: Request, id: str) -> Answer:  # noqa: A002 - as in the address
    """Say which bytes of which xorbs make up a file, or the part of it in `Range`."""
    found = _repository(request, "read")
    if id not in found.xet:
        raise Refused(404, f"No file {id}")
    asked = re.fullmatch(
        r"bytes=(\d+)-(\d+)", request.headers.get("Range", "bytes=0-9999999999999")
    )
    if asked is None:
        raise bad_request("Invalid range")
    first, last, at, offset = int(asked[1]), int(asked[2]), 0, 0
    terms: list[dict[str, Any]] = []
    xorbs: dict[str, list[dict[str, Any]]] = {}
    for one in found.xet[id].segments:
        if at <= last and at + one.length > first:
            offset = offset if terms else max(0, first - at)
            chunks = {"start": one.first, "end": one.end}
            terms.append({"hash": one.xorb, "unpacked_length": one.length, "range": chunks})
            xorbs.setdefault(one.xorb, []).append(_fetch(request.hub, one, chunks))
        at += one.length
    if not terms:
        raise Refused(416, "Range Not Satisfiable")
    return as_json({"offset_into_first_range": offset, "terms": terms, "xorbs": xorbs})


@endpoint("GET", "/xorb/{id}", storage=True, streams=True)
def get_xorb(request: Request, id: str) -> Answer:  # noqa: A002 - as in the address
    check_signed(request, id)
    content = request.hub.root / "xorbs" / id
    return ranged(request, Answer(b"", 200, {}, content, 0, content.stat().st_size))


def _fetch(hub: Hub, one: Segment, chunks: dict[str, int]) -> dict[str, Any]:
    xorb = (hub.root / "xorbs" / one.xorb).read_bytes()
    starts = [start for start, _ in _packed(xorb)]
    ends = [start + 8 + length for start, length in _packed(xorb)]
    part = {"start": starts[one.first], "end": ends[one.end - 1] - 1}
    where = f"{hub.storage}/xorb/{one.xorb}?{urlencode(signed_query(hub, one.xorb))}"
    return {"url": where, "ranges": [{"chunks": chunks, "bytes": part}]}


def _repository(request: Request, needed: str = "write") -> Repository:
    """The repository that a xet token is good for.

    Raises:
        Refused: 401 for another token than one for this scope that was made here.
    """
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    text, _, signature = given.rpartition(":")
    scope, kind, name, expires = (text.split(":") + [""] * 4)[:4]
    good = hmac.compare_digest(signature, request.hub.signature(text))
    if not good or scope not in {"write", needed} or int(expires) < time.time():
        raise Refused(401, "Invalid xet token")
    found = request.hub.repositories.get(("dataset" if kind == "dataset" else "model", name))
    if found is None:
        raise Refused(401, "The repository is gone")
    return found


def _chunks(xorb: bytes) -> list[bytes]:
    """Unpack a xorb's chunks; what follows them is its footer, which says the same again."""
    found = []
    for at, length in _packed(xorb):
        size = int.from_bytes(xorb[at + 5 : at + 8], "little")
        chunk = _unpacked(xorb[at + 8 : at + 8 + length], xorb[at + 4])
        if len(chunk) != size:
            raise bad_request(f"A chunk has {len(chunk)} bytes, its header says {size}")
        found.append(chunk)
    return found


def _packed(xorb: bytes) -> list[tuple[int, int]]:
    """Where each chunk's header of eight bytes begins, and how many bytes follow it."""
    found, at = [], 0
    while at + 8 <= len(xorb) and xorb[at] == 0:
        length = int.from_bytes(xorb[at + 1 : at + 4], "little")
        found.append((at, length))
        at += 8 + length
    return found


def _unpacked(packed: bytes, scheme: int) -> bytes:
    try:
        plain = packed if scheme == 0 else lz4.unpack(packed)
    except ValueError as error:
        raise bad_request(f"A chunk can't be unpacked: {error}") from error
    return _regrouped(plain) if scheme == 2 else plain


def _regrouped(grouped: bytes) -> bytes:
    """Undo the grouping by four: all first bytes came first, then all second ones, and so on."""
    out, at = bytearray(len(grouped)), 0
    for group in range(4):
        size = len(out[group::4])
        out[group::4] = grouped[at : at + size]
        at += size
    return bytes(out)


def _segment(hub: Hub, one: Segment) -> bytes:
    path = hub.root / "xorbs" / one.xorb
    if not path.exists():
        raise bad_request(f"xorb {one.xorb} was never uploaded")
    return b"".join(_chunks(path.read_bytes())[one.first : one.end])


def _files(shard: bytes) -> Iterator[tuple[str, XetFile]]:
    """Read a shard's files by xet's hash of them."""
    if not shard.startswith(_MAGIC):
        raise bad_request("Not a shard")
    at = _RECORD
    while shard[at : at + 32] != _BOOKEND:
        name = _hash(shard, at)
        flags, count = struct.unpack_from("<II", shard, at + 32)
        at += _RECORD
        segments = []
        for _ in range(count):
            xorb = _hash(shard, at)
            _, length, first, end = struct.unpack_from("<IIII", shard, at + 32)
            segments.append(Segment(xorb=xorb, length=length, first=first, end=end))
            at += _RECORD
        at += _RECORD * count if flags & _VERIFIED else 0
        if not flags & _WITH_SHA256:
            raise bad_request("A file in the shard has no SHA-256")
        yield name, XetFile(sha256=_hash(shard, at), segments=segments)
        at += _RECORD


def _hash(shard: bytes, at: int) -> str:
    """A hash is four little-endian numbers, written one after the other as hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", shard, at))
