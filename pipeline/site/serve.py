"""Listening: bind, say where, answer until Ctrl-C."""

from __future__ import annotations

import signal
from contextlib import closing, contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

from pipeline.site.guard import Access
from pipeline.site.render import load
from pipeline.workspace.listening import listen
from registry.errors import GapmendError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipeline.site.site import Site

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
    with closing(listen(host, port)) as listening:
        access = Access.to(host, listening.getsockname()[1])
        _answer(root, access, listening, said)


def warm(site: Site) -> None:
    """Load what the first pages would wait for; what can't be, they will say."""
    import pyarrow as pa
    import pyarrow.compute

    load()
    pa.array([0])  # loads pandas, half a second
    with suppress(GapmendError), site.catalog.reading():
        pass


def _answer(
    root: Path, access: Access, listening: socket.socket, said: Callable[[str], None]
) -> None:
    import uvicorn

    from pipeline.site.app import app
    from pipeline.site.site import Site

    site = Site.of(root, access)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            site.talks.stop()  # answers end as far as they came
            await super().shutdown(sockets)

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

    Thread(target=warm, args=(site,)).start()  # waited for at the end: it is in C++
    config = uvicorn.Config(
        app(site),
        access_log=False,  # addresses have the token
        log_level="warning",
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=65536,
    )
    try:
        Server(config).run(sockets=[listening])
    finally:
        site.talks.close()
