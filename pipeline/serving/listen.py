"""The address that is listened on, and the server's life: it ends in order when it is told to."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from pipeline.serving.guard import is_loopback
from registry.errors import MachineError, UserError

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp

    from pipeline.serving.answers import Running

BACKLOG = 2048
GRACE_S = 3.0
"""How long answers may go on when the server is told to stop."""

_TIMES = 50


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; whoever connects waits until the server runs.

    Args:
        host: a name or address of this machine.
        port: 0 takes a free one.

    Raises:
        UserError: the address isn't this machine's, or the port is in use or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"{host} is no address of this machine", "--host", given=host, expected="127.0.0.1"
        ) from error
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _not_bound(host, port, error) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the URL at which the server is found, without a path."""
    host, port = bound.getsockname()[:2]
    named = f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}"


def is_local(bound: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return is_loopback(str(bound.getsockname()[0]))


def run(app: ASGIApp, bound: socket.socket, running: Running) -> None:
    """Serve until Ctrl-C or SIGTERM; then answers have `GRACE_S` seconds, and are cancelled.

    Args:
        app: what answers.
        bound: where, see `listen`.
        running: the answers on their way.
    """
    # A request that is no HTTP, and a fault, which app.py has told: nothing is left for a log.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(2 * GRACE_S),
    )
    _Server(config, running).run(sockets=[bound])


class _Server(uvicorn.Server):
    """uvicorn's, with an end of our own: told to stop it leaves in order, and says no more."""

    def __init__(self, config: uvicorn.Config, running: Running) -> None:
        super().__init__(config)
        self._running = running

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's interface
        """Stop; a second signal doesn't wait for the answers."""
        if self.should_exit:
            self.force_exit = True
            self._running.cancel()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers end for a while, then cancel them, then close."""
        ending = asyncio.ensure_future(self._cancel_late())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            with suppress(asyncio.CancelledError):
                await ending

    async def _cancel_late(self) -> None:
        for _ in range(_TIMES):
            if self.force_exit:
                break
            await asyncio.sleep(GRACE_S / _TIMES)
        self._running.cancel()


def _not_bound(host: str, port: int, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return MachineError(
            f"port {port} of {host} is in use",
            "--port",
            given=str(port),
            fix="end what listens there, or take another: --port 0 finds a free one",
        )
    if error.errno == errno.EACCES:
        return MachineError(
            f"port {port} may not be listened on by this user",
            "--port",
            given=str(port),
            expected="1024 or higher",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UserError(
            f"{host} is no address of this machine", "--host", given=host, expected="127.0.0.1"
        )
    return MachineError(f"{host}:{port} can't be listened on: {error.strerror}", "--host")
