"""What stands before every request: whose it may be, and how large.

A page in a browser may send requests to 127.0.0.1, and by DNS rebinding read the answers: so on
loopback only loopback's own names are taken as Host, and no Origin of elsewhere. On any other
address a token is demanded.
"""

from __future__ import annotations

import hmac
import logging
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from pipeline.serving.refusal import RefusedError
from pipeline.workspace.listening import is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 8 * 2**20
"""Bytes of a request's body."""

JSON = "application/json"
_LOG = logging.getLogger("gapmend.access")


@dataclass(frozen=True)
class Guard:
    """An ASGI application around another that lets only some requests through.

    Attributes:
        app: the other one.
        token: that has to come as `Authorization: Bearer`; None: none.
        local: only what names this machine as Host is answered.
    """

    app: ASGIApp
    token: str | None
    local: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            refused = self._refused(Headers(scope=scope))
            if refused is None:
                await self.app(scope, receive, sent)
            else:
                challenge = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None  # noqa: PLR2004
                await refused.response(challenge)(scope, receive, sent)
        finally:
            _LOG.info("%s %s %s %.3f s", *_asked(scope), status or "left", time.monotonic() - began)

    def _refused(self, headers: Headers) -> RefusedError | None:
        if self.local and not is_loopback(_host(headers.get("host", ""))):
            return RefusedError(
                "this Host isn't answered here; expected 127.0.0.1 or localhost",
                HTTPStatus.FORBIDDEN,
            )
        origin = headers.get("origin")
        if self.local and origin is not None and not is_loopback(_host(urlsplit(origin).netloc)):
            return RefusedError("pages of elsewhere aren't answered here", HTTPStatus.FORBIDDEN)
        if self.token is not None and not _is_bearer(headers.get("authorization", ""), self.token):
            return RefusedError(
                "the token is missing or wrong; expected Authorization: Bearer TOKEN",
                HTTPStatus.UNAUTHORIZED,
                code="invalid_api_key",
            )
        return None


async def read_json(request: Request) -> Any:
    """Return a request's body.

    Raises:
        RefusedError: it is too large, isn't said to be JSON, or isn't.
    """
    from pydantic_core import from_json

    # Without this, a page of elsewhere could send one and have no leave asked for by its browser.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise RefusedError(
            f"Content-Type is {kind or 'missing'}; expected {JSON}",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        )
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise RefusedError(
                f"the request is longer than {LARGEST // 2**20} MiB",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
    try:
        return from_json(
            bytes(body), allow_inf_nan=False
        )  # half a surrogate pair is no text either
    except ValueError as error:
        raise RefusedError(f"the request is no JSON: {error}") from None


def _host(netloc: str) -> str:
    """Return the host of HOST, HOST:PORT or [IPv6]:PORT."""
    if netloc.startswith("["):
        return netloc.partition("]")[0][1:]
    return netloc.partition(":")[0]


def _is_bearer(given: str, token: str) -> bool:
    scheme, _, said = given.partition(" ")
    same = hmac.compare_digest(said.strip().encode(), token.encode())
    return scheme.lower() == "bearer" and same


def _asked(scope: Scope) -> tuple[str, str]:
    return scope["method"], scope["path"]
