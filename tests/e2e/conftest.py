"""The command line as a user has it: in its own process, on the quickstart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(sys.executable).parent / "gapmend"


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


@pytest.hookimpl(tryfirst=True)  # before what hands tests to processes reads it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process what runs in the quickstart's workspace or copies it."""
    for item in items:
        if "quickstart" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("quickstart"))


@pytest.fixture(scope="session")
def quickstart(project_root: Path) -> Path:
    """The quickstart's workspace after `gapmend run`: found up to date after `./just demo`."""
    workspace = project_root / "examples" / "quickstart"
    done = gapmend("run", "-C", workspace, "--json", timeout=900)
    assert done.code == 0, done.err[-2000:]
    return workspace
