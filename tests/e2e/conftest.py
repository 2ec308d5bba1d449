"""The command line as a user has it: in its own process, on the quickstart."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.loaded import LIGHT, MODELS, Loaded, light, with_models

PROGRAM = Path(sys.executable).parent / "gapmend"
MAIN = "pipeline.cli.main:main"


@dataclass(frozen=True)
class Called:
    """What a call of the command line left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


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


def forked(
    *arguments: str | Path, timeout: float = 120, loaded: Loaded = light, **environment: str
) -> Called:
    """Call the command line in a fork of a process that has its libraries loaded.

    For what isn't about a process's start: `gapmend` takes 0.3 to 7 s for that and does the same.
    """
    told = {"HF_HUB_OFFLINE": "1", **environment}
    return fork([MAIN, *map(str, arguments)], timeout=timeout, loaded=loaded, environment=told)


def fork(
    argv: Sequence[str],
    *,
    timeout: float = 120,
    loaded: Loaded = light,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Called:
    """Run a program (`module:function`, a file, or `-c` and code) in such a fork."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with loaded.start(argv, stdout=out, stderr=err, cwd=cwd, environment=environment) as begun:
            code = begun.wait(timeout)
        for file in (out, err):
            file.seek(0)
        return Called(code, out.read(), err.read())


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


def pytest_sessionfinish() -> None:
    """End the processes that were forked from."""
    light.close()
    with_models.close()


@pytest.hookimpl(tryfirst=True)  # before what hands tests to processes reads it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process what runs in the quickstart's workspace, copies it, or pushes it."""
    for item in items:
        if {"quickstart", "of_hub"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("quickstart"))


@pytest.fixture(scope="session")
def quickstart(project_root: Path) -> Path:
    """The quickstart's workspace after `gapmend run`: found up to date after `./just demo`."""
    workspace = project_root / "examples" / "quickstart"
    done = gapmend("run", "-C", workspace, "--json", timeout=900)
    assert done.code == 0, done.err[-2000:]
    return workspace
