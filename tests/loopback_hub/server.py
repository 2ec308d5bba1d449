"""The Hub over HTTP/1.1 on the loopback device: two origins, faults, and a log of it all.

The first origin is the Hub. The second is the storage, where large files go to and come from by
signed addresses; as on the real one, a token sent there is refused.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import traceback
from contextlib import contextmanager
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tests.loopback_hub.hub import Hub
from tests.loopback_hub.messages import Answer, Request, as_json, find
from tests.loopback_hub.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.loopback_hub.faults import Fault, Faults
    from tests.loopback_hub.records import Token


_ENDPOINTS = (
    "commits",
    "discussions",
    "downloads",
    "history",
    "lfs",
    "references",
    "repositories",
    "xet",
)


@contextmanager
def serving(
    root: Path,
    *,
    faults: Faults | None = None,
    tokens: Mapping[str, str] | None = None,
    port: int = 0,
) -> Iterator[Hub]:
    """Serve the Hub kept in a folder until the block ends.

    Args:
        root: the folder, made where it isn't there.
        faults: what goes wrong; may be changed while it runs (`hub.faults`).
        tokens: access tokens by value, each `user:read` or `user:write`.
        port: of the Hub itself; 0 takes a free one, as the storage always does.

    Raises:
        RuntimeError: at the end, when the Hub itself failed at a request (a fault in these files).
    """
    # The endpoints register themselves as they are imported.
    for name in _ENDPOINTS:
        import_module(f"tests.loopback_hub.{name}")
    hub = Hub(root, faults)
    for value, text in (tokens or {}).items():
        user, _, scope = text.partition(":")
        hub.add_token(value, user, "read" if scope == "read" else "write")
    servers = [_Server(hub, port, storage=False), _Server(hub, 0, storage=True)]
    hub.endpoint, hub.storage = (f"http://127.0.0.1:{one.server_port}" for one in servers)
    threads = [threading.Thread(target=one.serve_forever, args=(0.05,)) for one in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for one in servers:
            one.shutdown()
            one.server_close()
        for thread in threads:
            thread.join()
    if hub.crashes:
        raise RuntimeError("the loopback Hub itself failed") from hub.crashes[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub, port: int, *, storage: bool) -> None:
        self.hub = hub
        self.storage = storage
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_close(self) -> None:
        """Close the connections that clients keep open, too."""
        super().server_close()
        for one in list(self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that is killed or breaks off is what is tested here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, *_: Any) -> None:
        """Stay silent: the log is a file."""

    def do_GET(self) -> None:
        hub = self.server.hub
        who, bearer = self._who()
        line = self._line(who, bearer)
        request = self._request(who)
        fault = hub.faults.draw(self.command, self.path)
        if fault:
            line["fault"] = str(fault)
        try:
            answer = self._carry_out(request, fault, unknown=bool(bearer) and who is None)
            if answer is not None:
                line["status"] = None if fault and fault.kind == "lost" else int(answer.status)
                line["bytes"] = answer.size
                line["error"] = answer.headers.get("X-Error-Message")
        except OSError:  # the client is gone
            self.close_connection = True
            line["broken"], answer = True, None
        # Before the answer goes out: who has it finds the request in the log.
        hub.log({key: value for key, value in line.items() if value is not None or key in _KEPT})
        if answer is not None:
            try:
                self._send(request, answer, fault)
            except OSError:
                self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - called by these names

    def _line(self, who: Token | None, bearer: str | None) -> dict[str, Any]:
        """What the log says of this request, but for its outcome."""
        return {
            "at": round(time.time(), 3),
            "origin": "storage" if self.server.storage else "hub",
            "method": self.command,
            "path": self.path,
            "headers": self._logged_headers(who),
            "token": who.name if who else bearer and "unknown",
            "status": None,
        }

    def _request(self, who: Token | None) -> Request:
        text = self.headers.get("Content-Length", "")
        length = int(text) if text.isdigit() else None
        return Request(
            hub=self.server.hub,
            method=self.command,
            target=self.path,
            headers=self.headers,
            who=who,
            stream=self.rfile,
            length=length,
            unread=length or 0,
        )

    def _carry_out(self, request: Request, fault: Fault | None, *, unknown: bool) -> Answer | None:
        """Do what is asked, unless the fault says that it isn't done."""
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault and fault.kind == "drop":
            for _ in range(2):
                if request.unread > 1:
                    request.unread -= len(self.rfile.read(request.unread // 2))
            self._reset()
            return None
        if fault and fault.kind == "status":
            named = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return _refusal(Refused(fault.status, responses[fault.status], headers=named))
        try:
            return self._call(request, unknown=unknown)
        except Refused as error:
            return _refusal(error)
        except OSError:  # the client is gone
            raise
        except Exception as error:  # noqa: BLE001 - a fault of this Hub, not one that is tested
            self.server.hub.crashes.append(error)
            traceback.print_exc()
            return _refusal(Refused(500, f"The loopback Hub failed: {error!r}"))

    def _call(self, request: Request, *, unknown: bool) -> Answer:
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # where the body ends isn't known
            raise Refused(411, "Length Required")
        if unknown and not self.server.storage:
            raise Refused(401, "Invalid credentials in Authorization header")
        method = "GET" if request.method == "HEAD" else request.method
        route, arguments = find(method, request.path, storage=self.server.storage)
        if route.streams:
            return route.call(request, **arguments)
        request.body()
        with request.hub.lock:
            return route.call(request, **arguments)

    def _send(self, request: Request, answer: Answer, fault: Fault | None) -> None:
        for _ in request.pieces():  # an answer before the whole request is read resets it
            pass
        if fault and fault.kind == "lost":
            self._reset()
            return
        lines = [f"HTTP/1.1 {int(answer.status)} {responses.get(answer.status, '')}"]
        named = {"Content-Length": str(answer.size), "X-Request-Id": "loopback", **answer.headers}
        lines += [f"{key}: {value}" for key, value in named.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if fault and fault.kind == "cut":
            self._send_half(head, answer, request.method)
            return
        self.connection.sendall(head)
        if request.method != "HEAD":
            for piece in answer.pieces():
                self.connection.sendall(
                    _flipped(piece) if fault and fault.kind == "flip" else piece
                )

    def _send_half(self, head: bytes, answer: Answer, method: str) -> None:
        if method == "HEAD" or answer.size < 2:
            self.connection.sendall(head[: len(head) // 2])
        else:
            self.connection.sendall(head)
            left = answer.size // 2
            for piece in answer.pieces():
                self.connection.sendall(piece[:left])
                left -= len(piece)
                if left <= 0:
                    break
        self.connection.shutdown(socket.SHUT_WR)
        self.close_connection = True

    def _reset(self) -> None:
        """End the connection the hard way: the client sees a reset, not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _who(self) -> tuple[Token | None, str | None]:
        found = self.headers.get("Authorization", "")
        value = found.removeprefix("Bearer ").strip()
        return (self.server.hub.token(value), found) if found else (None, None)

    def _logged_headers(self, who: Token | None) -> dict[str, str]:
        kept = {key.lower(): value for key, value in self.headers.items()}
        if "authorization" in kept:
            kept["authorization"] = f"Bearer <{who.name if who else 'unknown'}>"
        return kept


_KEPT = {"status", "token"}


def _flipped(piece: bytes) -> bytes:
    middle = len(piece) // 2
    return (
        piece[:middle] + bytes(one ^ 1 for one in piece[middle : middle + 1]) + piece[middle + 1 :]
    )


def _refusal(error: Refused) -> Answer:
    named = {"X-Error-Message": error.message.encode("ascii", "replace").decode(), **error.headers}
    if error.code:
        named["X-Error-Code"] = error.code
    answer = as_json(error.body, error.status)
    return Answer(answer.body, answer.status, {**answer.headers, **named})
