"""The command line as a user has it: in its own process, on the quickstart."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.called import Called, fork
from tests.support.loaded import LIGHT, MODELS, Loaded

PROGRAM = Path(sys.executable).parent / "gapmend"


def gapmend(*arguments: str | Path, timeout: float = 120, **environment: str) -> Called:
    """Call the installed program with these arguments."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )
    return Called(done.returncode, done.stdout, done.stderr)


_ADAPTER = """
import sys
from pathlib import Path
from registry.models.load import nano_folder
from tests.support.tiny_models import save_adapter
save_adapter(Path(sys.argv[1]), nano_folder())
"""


def nano_adapter(folder: Path, loaded: Loaded) -> Path:
    """Make an adapter of nano where PEFT is loaded: here it isn't, and takes seconds."""
    made = fork(["-c", _ADAPTER, str(folder)], loaded=loaded)
    assert made.code == 0, made.err
    return folder


with socket.socket() as _free:
    _free.bind(("127.0.0.1", 0))
    HUB_PORT = _free.getsockname()[1]


@dataclass(frozen=True)
class OfHub:
    """A process with the libraries loaded for a Hub at HUB_PORT, and where they keep its files."""

    loaded: Loaded
    home: Path

    def emptied(self) -> Path:
        """Return the folder, with nothing in it."""
        shutil.rmtree(self.home)
        self.home.mkdir()
        return self.home


@pytest.fixture(scope="session")
def of_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfHub]:
    """As `with_models`, for a Hub: as they load, the libraries read where it is and where to keep.

    Its forks are told the same again, and their token.
    """
    home = tmp_path_factory.mktemp("home")
    told = {"HF_ENDPOINT": f"http://127.0.0.1:{HUB_PORT}", "HF_HOME": str(home)}
    loaded = Loaded((*LIGHT, *MODELS), {**told, "HF_HUB_OFFLINE": "0"})
    yield OfHub(loaded, home)
    loaded.close()


@pytest.hookimpl(tryfirst=True)  # before what hands tests to processes reads it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process what runs in the quickstart's workspace, copies it, or pushes it."""
    for item in items:
        if {"quickstart", "of_hub"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("quickstart"))
            item.add_marker(pytest.mark.timeout(900))  # the first runs the whole loop


@pytest.fixture(scope="session")
def quickstart(project_root: Path) -> Path:
    """The quickstart's workspace after `gapmend run`: found up to date after `./just demo`."""
    workspace = project_root / "examples" / "quickstart"
    done = gapmend("run", "-C", workspace, "--json", timeout=900)
    assert done.code == 0, done.err[-2000:]
    return workspace
