"""A Hub on the loopback device: serves folders as model repositories to the real client."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_INFO = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/revision/([\w.%-]+)")
_TREE = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/tree/([\w.%-]+)")
_FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([\w.%-]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a folder at one commit; `requests` has what was asked for."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories = dict(repositories)
        self.requests: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repository: str) -> str:
        return hashlib.sha1(repository.encode(), usedforsecurity=False).hexdigest()


@contextmanager
def serving(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve the folders until the block ends."""
    hub = Hub(repositories)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        if found := _INFO.fullmatch(path):
            self._info(*found.groups())
        elif found := _TREE.fullmatch(path):
            self._tree(*found.groups())
        elif found := _FILE.fullmatch(path):
            self._file(*found.groups())
        else:
            self._refuse("RepoNotFound")

    def _known(self, repository: str, revision: str) -> Path | None:
        folder = self.server.repositories.get(repository)
        if folder is None:
            self._refuse("RepoNotFound")
        elif revision not in {"main", self.server.commit(repository)}:
            self._refuse("RevisionNotFound")
        else:
            return folder
        return None

    def _info(self, repository: str, revision: str) -> None:
        if folder := self._known(repository, revision):
            names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            body = {
                "id": repository,
                "sha": self.server.commit(repository),
                "private": False,
                "tags": [],
                "siblings": [{"rfilename": name} for name in names],
            }
            self._send(json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _tree(self, repository: str, revision: str) -> None:
        if folder := self._known(repository, revision):
            files = [
                {
                    "type": "file",
                    "oid": hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest(),
                    "size": path.stat().st_size,
                    "path": str(path.relative_to(folder)),
                }
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ]
            self._send(json.dumps(files).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, name: str) -> None:
        folder = self._known(repository, revision)
        if folder is None:
            return
        if not (folder / name).is_file():
            self._refuse("EntryNotFound")
            return
        data = (folder / name).read_bytes()
        named = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": self.server.commit(repository),
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(data, named)
            return
        first = int(asked[1])
        last = min(int(asked[2] or len(data) - 1), len(data) - 1)
        named["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(data[first : last + 1], named, HTTPStatus.PARTIAL_CONTENT)

    def _send(
        self, body: bytes, headers: Mapping[str, str], status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code}, HTTPStatus.NOT_FOUND)
