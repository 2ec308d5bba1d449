"""The local page of a workspace, served in this process as `gapmend ui` serves it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.site.site import Site


@dataclass(frozen=True)
class Paged:
    """A page that is served."""

    site: Site
    origin: str


@contextmanager
def paged(root: Path) -> Iterator[Paged]:
    """Serve the page of a workspace on a free port while the body runs."""
    import uvicorn

    from pipeline.site.app import app
    from pipeline.site.guard import Access
    from pipeline.site.site import Site

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        site = Site.of(root, Access.to("127.0.0.1", port))
        config = uvicorn.Config(app(site), log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield Paged(site, f"http://127.0.0.1:{port}")
        server.should_exit = True
        thread.join(30)
        site.talks.close()
