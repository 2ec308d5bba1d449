"""Listening: bind, say where, answer until Ctrl-C."""

from __future__ import annotations

import errno
import signal
import socket
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from pipeline.site.guard import Access, is_loopback
from registry.errors import MachineError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MOST_PORT = 65535
_STOP = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 2  # for what is being answered when it is stopped


def serve(root: Path, host: str, port: int, *, said: Callable[[str], None]) -> None:
    """Serve the page of a workspace until it is interrupted.

    Args:
        root: the workspace's folder.
        host: what to listen on: 127.0.0.1, or another, for which a token is needed.
        port: which; 0 is any that is free.
        said: told the address, once it is answered.

    Raises:
        UserError: `root` is no workspace, or the port is in use or not ours.
    """
    with closing(_listening(host, port)) as listening:
        access = Access.to(host, listening.getsockname()[1])
        _answer(root, access, listening, said)


def _answer(
    root: Path, access: Access, listening: socket.socket, said: Callable[[str], None]
) -> None:
    import uvicorn

    from pipeline.site.app import app
    from pipeline.site.site import Site

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            said(access.url)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """End in order at a signal; uvicorn raises it again, as if it were a mistake."""
            before = [signal.signal(number, self.handle_exit) for number in _STOP]
            try:
                yield
            finally:
                for number, handler in zip(_STOP, before, strict=True):
                    signal.signal(number, handler)

    config = uvicorn.Config(
        app(Site.of(root, access)),
        access_log=False,  # addresses have the token
        log_level="warning",
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=65536,
    )
    Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _MOST_PORT:
        raise UserError(f"no port {port}", "--port", f"0 to {_MOST_PORT}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"no host '{host}' ({error})", "--host", "an address here") from None
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        made.listen(128)
    except OSError as error:
        made.close()
        raise _refused(error, host, port) from None
    if is_loopback(host) and not is_loopback(str(address[0])):  # a hosts file may say anything
        made.close()
        raise UserError(f"{host} is {address[0]} here, which others reach", "--host", "127.0.0.1")
    return made


def _refused(error: OSError, host: str, port: int) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return MachineError(
            f"port {port} is in use", "--port", fix="choose another, or --port 0 for any"
        )
    return MachineError(f"can't listen on {host}:{port}: {error.strerror}", "--host")
