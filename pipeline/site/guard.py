"""Who may ask the page, and what a browser may do with the answer.

A page on 127.0.0.1 is in reach of every other page that the same browser has open. So a request has
to name this server as its host (a name that was turned to 127.0.0.1 meanwhile does not), what
changes something has to come from our own pages and bring their token, and no answer may be framed,
embedded or read elsewhere. Where another host than the loopback is asked for, others on the network
reach it as well: then a secret is needed, once in the address and from then on as a cookie.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse

from pipeline.workspace.listening import is_loopback

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "token"  # noqa: S105 - the name of a parameter
MOST_BYTES = 64 * 1024
"""Of what is sent to us: forms."""

_SAFE = ("GET", "HEAD")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # A form's Origin is "null" under no-referrer, and can't be checked.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        host: what the server listens on.
        port: the same.
        token: what a browser has to bring; None on the loopback.
        csrf: what a form of ours has to bring.
    """

    host: str
    port: int
    token: str | None
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @classmethod
    def to(cls, host: str, port: int) -> Access:
        """Return who may ask a server on this host: anyone on the loopback, else who knows."""
        alone = is_loopback(host)
        return cls(host, port, None if alone else secrets.token_urlsafe(32))

    @property
    def url(self) -> str:
        """Return the address for a browser on this machine, with the token if there is one."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        asked = f"?{urlencode({TOKEN: self.token})}" if self.token else ""
        return f"http://{shown}:{self.port}/{asked}"

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this server: by a name that nobody else decides about.

        On the loopback these are its own names; elsewhere also what was asked for, this machine's
        name, and addresses in digits, which no other page's name can be turned into.
        """
        name, _, port = host.rpartition(":")
        if port != str(self.port):
            return False
        name = name.lower().removeprefix("[").removesuffix("]")
        if name in LOOPBACK or self.token is None:
            return name in LOOPBACK or name == self.host
        return name in (self.host.lower(), socket.gethostname().lower()) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses what must not be answered, and says of every answer what may be done with it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """Stand before `app`."""
        self._app = app
        self._access = access
        self._cookie = f"gapmend-{access.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket: there are none
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope)
        await (refused or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return what is answered instead; None where the request is in order."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._access.is_ours(hosts[0]):
            return _refuse("this address isn't served here: ask for the one in the terminal", 421)
        embedded = headers.get("sec-fetch-mode", "navigate") != "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and embedded:
            return _refuse("another page asked for this")
        if (answer := self._known(scope, headers)) is not None:
            return answer
        return None if scope["method"] in _SAFE else _not_a_form(scope, headers, hosts[0])

    def _known(self, scope: Scope, headers: Headers) -> Response | None:
        """Return None for who is known; else a way in for the token, or a refusal."""
        token = self._access.token
        if token is None or _same(_cookie(headers, self._cookie), token):
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] in _SAFE and any(k == TOKEN and _same(v, token) for k, v in asked):
            # The path is not taken over: "//elsewhere/" would be another server's.
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self._cookie, token, httponly=True, samesite="strict", path="/")
            return answer
        return _refuse("open the address that `gapmend ui` has printed, with its token", 401)


def _not_a_form(scope: Scope, headers: Headers, host: str) -> Response | None:
    """Return why what would change something isn't a form of ours; None where it may be."""
    if scope["method"] != "POST":
        return _refuse("nothing here is asked so", 405)
    if headers.get("origin") != f"http://{host}":
        return _refuse("this did not come from a page of this server")
    size = headers.get("content-length", "")
    if not size.isdecimal() or int(size) > MOST_BYTES:
        return _refuse(f"a form has at most {MOST_BYTES:,} bytes", 413)
    return None


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _refuse(why: str, status: int = 403) -> Response:
    return PlainTextResponse(f"gapmend: {why}\n", status)
