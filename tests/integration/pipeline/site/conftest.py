"""A workspace that was made once, and a client that asks its page as a browser would."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from starlette.testclient import TestClient

from pipeline.site.app import app
from pipeline.site.guard import Access
from pipeline.site.site import Site
from tests.support.shown_store import Shown, make

PORT = 8642
HERE = f"http://127.0.0.1:{PORT}"


class Client(TestClient):
    """A client that knows what a form of the page has to bring."""

    csrf = ""


class Ask(Protocol):
    """Returns a client for the page of a workspace."""

    def __call__(self, root: Path, access: Access | None = None, /) -> Client:
        """By default on the loopback."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The workspace, for tests that only look."""
    return make(tmp_path_factory.mktemp("shown") / "ws")


@pytest.fixture
def own(made: Shown, tmp_path: Path) -> Shown:
    """A copy, for a test that changes it."""
    return replace(made, root=Path(shutil.copytree(made.root, tmp_path / "ws")))


@pytest.fixture(scope="module")
def ask() -> Ask:
    """Return a client for the page of a workspace."""

    def client(root: Path, access: Access | None = None) -> Client:
        access = access or Access.to("127.0.0.1", PORT)
        made = Client(app(Site.of(root, access)), base_url=HERE, follow_redirects=False)
        made.csrf = access.csrf
        return made

    return client


@pytest.fixture(scope="module")
def page(made: Shown, ask: Ask) -> Client:
    """The page of the workspace that was made once."""
    return ask(made.root)
