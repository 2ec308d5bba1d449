"""The server's life: it ends in order when it is told to."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from starlette.types import ASGIApp

    from pipeline.serving.answers import Running

GRACE_S = 3.0
"""How long answers may go on when the server is told to stop."""

_TIMES = 50


def run(app: ASGIApp, bound: socket.socket, running: Running) -> None:
    """Serve until Ctrl-C or SIGTERM; then answers have `GRACE_S` seconds, and are cancelled.

    Args:
        app: what answers.
        bound: where, see `pipeline.workspace.listening`.
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
