"""A request as an endpoint sees it, the answer it gives, and the table of endpoints."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from tests.loopback_hub.refusals import Refused, bad_request, repository_not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from email.message import Message
    from io import BufferedIOBase
    from pathlib import Path

    from tests.loopback_hub.hub import Hub
    from tests.loopback_hub.records import Kind, Repository, Token

BODY_LIMIT = 200_000_000  # bytes of a body that is read into memory


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body: bytes, or `length` bytes of a file from `start`."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    start: int = 0
    length: int = 0

    @property
    def size(self) -> int:
        return self.length if self.file else len(self.body)

    def pieces(self) -> Iterator[bytes]:
        """The body, a megabyte at a time."""
        if self.file is None:
            yield self.body
            return
        with self.file.open("rb") as file:
            file.seek(self.start)
            left = self.length
            while left > 0 and (piece := file.read(min(left, 1 << 20))):
                left -= len(piece)
                yield piece


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    named = {"Content-Type": "application/json; charset=utf-8"}
    for key, text in headers.items():
        named[key.replace("_", "-")] = text
    return Answer(json.dumps(value).encode(), status, named)


@dataclass(slots=True)
class Request:
    """One request, and the rights of who makes it (`who` is None without a token)."""

    hub: Hub
    method: str
    target: str
    headers: Message
    who: Token | None
    stream: BufferedIOBase
    length: int | None
    unread: int = 0
    _body: bytes | None = None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query's last value by key; `expand[]` and repeated keys are joined by commas."""
        found = parse_qs(self.target.partition("?")[2], keep_blank_values=True)
        return {key: ",".join(values) for key, values in found.items()}

    def body(self) -> bytes:
        """Read the body into memory, once."""
        if self._body is None:
            if (self.length or 0) > BODY_LIMIT:
                raise Refused(413, "Payload too large")
            self._body = b"".join(self.pieces())
        return self._body

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes, a megabyte at a time.

        Raises:
            ConnectionError: when the client breaks off.
        """
        while self.unread > 0:
            piece = self.stream.read(min(self.unread, 1 << 20))
            if not piece:
                raise ConnectionResetError("the client broke off in its request")
            self.unread -= len(piece)
            yield piece

    def json(self) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            Refused: 400 where it is something else.
        """
        try:
            found = json.loads(self.body() or b"{}")
        except ValueError as error:
            raise bad_request(f"Invalid JSON: {error}") from error
        if not isinstance(found, dict):
            raise bad_request("Invalid JSON: expected an object")
        return found

    # ------------------------------------------------------------------ rights

    def user(self) -> Token:
        """Return the token.

        Raises:
            Refused: 401 without one.
        """
        if self.who is None:
            raise Refused(401, "Invalid username or password.")
        return self.who

    def owns(self, repository: Repository) -> bool:
        return self.who is not None and self.who.user == repository.owner

    def repository(self, kinds: str, name: str) -> Repository:
        """Find a repository that this token may see, by `models` or `datasets` and its name.

        Raises:
            Refused: RepoNotFound, alike for absent and private.
        """
        kind: Kind = "dataset" if kinds.startswith("dataset") else "model"
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and not self.owns(found)):
            raise repository_not_found(anonymous=self.who is None)
        return found

    def writable(self, kinds: str, name: str) -> Repository:
        """Find a repository that this token may change.

        Raises:
            Refused: RepoNotFound; 401 without a token; 403 for a read token or another's.
        """
        found = self.repository(kinds, name)
        self.must_write(found.owner)
        return found

    def must_write(self, owner: str | None = None) -> Token:
        """Check that the token may write, to this owner's repositories if one is given.

        Raises:
            Refused: 401 without a token, 403 where it may not.
        """
        token = self.user()
        if token.scope != "write":
            message = "Forbidden: you must use a write token to do this."
            raise Refused(403, message)
        if owner is not None and token.user != owner:
            raise Refused(403, f"Forbidden: you don't have the rights to write to {owner}.")
        return token


_PARTS = {
    "kinds": r"(?P<kinds>models|datasets)",
    "of": r"(?P<kinds>datasets/)?",  # web addresses: a model's has no prefix
    "repo": r"(?P<name>[\w.-]+/[\w.-]+?)",
    "rev": r"(?P<rev>refs/(?:pr|convert)/[^/]+|[^/]+)",
    "path": r"(?P<path>.+)",
    "num": r"(?P<num>\d+)",
    "id": r"(?P<id>[0-9a-f]{32,64})",
}


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    pattern: re.Pattern[str]
    call: Callable[..., Answer]
    storage: bool
    streams: bool


ROUTES: list[Route] = []


def endpoint(
    method: str, path: str, *, storage: bool = False, streams: bool = False
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Register an endpoint; `{kinds}`, `{repo}`, `{rev}`, `{path}`… become its arguments.

    Args:
        method: the HTTP method; HEAD is answered like GET, without a body.
        path: regular expression with the names above in braces.
        storage: whether it is on the storage's origin, where tokens are refused.
        streams: whether it reads its body itself, outside the Hub's lock.
    """
    pattern = re.compile(re.sub(r"\{([a-z]+)\}", lambda found: _PARTS[found[1]], path))

    def register(call: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append(Route(method, pattern, call, storage, streams))
        return call

    return register


def find(method: str, path: str, *, storage: bool) -> tuple[Route, dict[str, str]]:
    """Find the endpoint and its arguments.

    Raises:
        Refused: 404 where there is none, 405 for another method.
    """
    here = [route for route in ROUTES if route.storage == storage]
    known = False
    for route in here:
        if found := route.pattern.fullmatch(path):
            known = True
            if route.method == method:
                named = {key: unquote(text or "") for key, text in found.groupdict().items()}
                return route, named
    if known:
        raise Refused(405, f"Method {method} not allowed")
    raise Refused(404, f"Cannot {method} {path}")
